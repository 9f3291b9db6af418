/**
 * Raises the machine version, at the leader: once every member was seen for a while with a build that applies a
 * newer one, an entry puts it in force. Until then the cluster runs like its oldest build, and each member can go
 * back to the build it had; from then on none can. So whoever wants to wait keeps one member on the old build.
 */
import type { Clock, Log, Millis, Timer } from "../replica/ports.ts";
import type { Command } from "./commands.ts";

/** Between two looks at what the members support. */
const LOOK_MS: Millis = 1_000;
/** Without a break: a member that restarts with its old build again stops it. */
const SUPPORTED_FOR_MS: Millis = 10_000;

export interface VersionRaiserOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** `supported`: by every member, null while one was not heard of. */
  readonly versions: () => { readonly inForce: number; readonly supported: number | null };
  readonly propose: (command: Command, weight: number) => Promise<unknown>;
}

export class VersionRaiser {
  readonly #o: VersionRaiserOptions;
  #timer: Timer | null = null;
  /** Since when every member supports this version. */
  #since: { readonly version: number; readonly at: Millis } | null = null;

  constructor(options: VersionRaiserOptions) {
    this.#o = options;
  }

  start(term: number): void {
    this.stop();
    this.#timer = this.#o.clock.after(LOOK_MS, () => this.#look(term));
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#since = null;
  }

  #look(term: number): void {
    const { clock, log, propose, versions } = this.#o;
    const { inForce, supported } = versions();
    this.#timer = clock.after(LOOK_MS, () => this.#look(term));
    if (supported === null || supported <= inForce) {
      this.#since = null;
      return;
    }
    const now = clock.monotonic();
    if (this.#since?.version !== supported) this.#since = { version: supported, at: now };
    if (now - this.#since.at < SUPPORTED_FOR_MS) return;
    // A repeat changes nothing: another look may come before this one is applied.
    propose({ type: "raise", term, version: supported }, 1).then(
      () => log.info(`raised the machine version from ${inForce} to ${supported}`),
      (error: unknown) =>
        log.debug("the machine version could not be raised yet", { error: String(error) }),
    );
  }
}
