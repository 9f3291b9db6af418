/**
 * The configurations in the log by index. The newest one is in force from the moment it is appended, and is
 * undone when its entry is truncated (Raft dissertation, 4.1); so the older ones are kept until compacted.
 */
import { decodeConfigurationEntry, EMPTY_CONFIGURATION } from "./configuration.ts";
import { invariant, must } from "./invariant.ts";
import type { Configuration, Entry, LogIndex } from "./types.ts";

/** Folders of forgotten configurations that are remembered; the oldest go first. */
const PAST_MAX = 256;

interface Dated {
  readonly index: LogIndex;
  readonly configuration: Configuration;
}

export class ConfigurationHistory {
  /** Ascending; never empty; [0] is as of the compacted index. */
  #dated: [Dated, ...Dated[]];
  /** The last of them: asked for several times with every message. */
  #newest: Dated;
  /** Incarnations in committed configurations that were compacted by this process. At most PAST_MAX. */
  readonly #past = new Set<string>();

  /** `base`: as of the compacted index, null when that is not known or nothing was compacted. */
  constructor(compacted: LogIndex, base: Configuration | null, entries: readonly Entry[]) {
    this.#newest = { index: compacted, configuration: base ?? EMPTY_CONFIGURATION };
    this.#dated = [this.#newest];
    for (const entry of entries) this.append(entry);
  }

  get current(): Configuration {
    return this.#newest.configuration;
  }

  /** Index of the entry that holds the current one. */
  get currentIndex(): LogIndex {
    return this.#newest.index;
  }

  /** The configuration in force when the log ended at `index`. */
  at(index: LogIndex): Configuration {
    const dated = this.#dated.findLast((each) => each.index <= index);
    return must(dated, "a configuration that was compacted is not asked for").configuration;
  }

  /** Whether a configuration of the log holds the folder with this incarnation, or one did that was compacted since. */
  hasHeld(incarnation: string): boolean {
    return (
      this.#past.has(incarnation) ||
      this.#dated.some(({ configuration }) => incarnationsOf(configuration).includes(incarnation))
    );
  }

  /** Takes note of a `config` or `bootstrap` entry. */
  append(entry: Entry): void {
    invariant(entry.index > this.#newest.index, "configurations ascend along the log");
    this.#newest = { index: entry.index, configuration: decodeConfigurationEntry(entry) };
    this.#dated.push(this.#newest);
  }

  truncate(from: LogIndex): void {
    while (this.#dated.length > 1 && this.#newest.index >= from) {
      this.#dated.pop();
      this.#newest = must(this.#dated.at(-1), "there is a configuration at all times");
    }
  }

  compact(index: LogIndex): void {
    const [base, ...later] = this.#dated;
    const configuration = this.at(index);
    for (const dated of this.#dated.filter((each) => each.index <= index))
      for (const incarnation of incarnationsOf(dated.configuration)) this.#past.add(incarnation);
    for (const oldest of this.#past) {
      if (this.#past.size <= PAST_MAX) break;
      this.#past.delete(oldest);
    }
    this.#dated = [{ index, configuration }, ...later.filter((dated) => dated.index > index)];
    this.#newest = must(this.#dated.at(-1), "there is a configuration at all times");
    invariant(base.index <= index, "compaction goes forward");
  }

  restart(index: LogIndex, configuration: Configuration): void {
    this.#newest = { index, configuration };
    this.#dated = [this.#newest];
  }
}

function incarnationsOf({ members }: Configuration): readonly string[] {
  return Object.values(members).map(({ incarnation }) => incarnation);
}
