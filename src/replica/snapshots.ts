/**
 * A member's part in snapshots: serves them to members that this leader's log no longer reaches, fetches the
 * one that a leader offers, and puts it in place of state and log while everything else of the driver halts.
 */
import { decodeConfigurationEntry, encodeConfiguration } from "../raft/configuration.ts";
import type { Raft } from "../raft/raft.ts";
import {
  asIndex,
  asTerm,
  type Configuration,
  type Effects,
  type Entry,
  type LogIndex,
  type NodeId,
} from "../raft/types.ts";
import { encodeBootstrap } from "./envelope.ts";
import { firstConfiguration } from "./founding.ts";
import {
  type BootstrapRecord,
  type Clock,
  FatalError,
  type Log,
  type Millis,
  type PeerFrame,
  type SnapshotCopy,
  type SnapshotFrame,
  type SnapshotManifest,
  type SnapshotStore,
} from "./ports.ts";
import { RepairPace } from "./repair-pace.ts";
import { SnapshotReceiver } from "./snapshot-receiver.ts";
import { RETAINED_BYTES_MAX, SnapshotSender } from "./snapshot-sender.ts";

/** What snapshots need of the replica around them. */
export interface SnapshotsPort {
  readonly store: SnapshotStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Null until the cluster is founded. */
  raft(): Raft | null;
  /** Entry 1's record, once there is one. */
  record(): BootstrapRecord | null;
  applied(): LogIndex;
  /** Commits what was applied to the state's file: a copy holds it then. */
  flush(): void;
  /** Of the log, on disk. */
  logBytes(): number;
  /**
   * Hands over what the core wants written, then hears, ticks, writes and applies nothing until what it
   * returns is called.
   */
  halt(): () => void;
  /** State, log and core stand at the snapshot; still halted. */
  installed(manifest: SnapshotManifest): void;
  /** The state is known to differ from the others' (T9). */
  isStateWrong(): boolean;
  /** The state alone stands at the snapshot, the log goes on behind it; still halted. */
  stateReplaced(manifest: SnapshotManifest): void;
  fatal(error: FatalError): void;
  send(to: NodeId, frame: PeerFrame): boolean;
  /** Bytes that the connection to a peer was given and has not sent yet. */
  waitingBytes(to: NodeId): number;
}

/** What the last leader kept its log for is kept so long by the next one: a large snapshot takes minutes. */
const INHERITED_MS: Millis = 600_000;
/** A snapshot that was made a moment ago may be ahead of what this disk has; not for long. */
const CATCH_UP_MS: Millis = 10_000;
const CATCH_UP_LOOK_MS: Millis = 20;

export class Snapshots {
  readonly #port: SnapshotsPort;
  readonly #sender: SnapshotSender;
  readonly #receiver: SnapshotReceiver;
  readonly #pace: RepairPace;
  /** The leader keeps its log behind this index: so does this member, which may lead before that is over. */
  #inherited: { readonly index: LogIndex; readonly until: Millis } | null = null;

  /** Up to there the log may be gone, though the core does not know yet: a compaction is under way. */
  #forgotten: LogIndex = asIndex(0);

  constructor(port: SnapshotsPort) {
    this.#port = port;
    const { clock, log, store } = port;
    this.#pace = new RepairPace(log);
    const send = (to: NodeId, frame: SnapshotFrame): boolean =>
      port.send(to, { kind: "snapshot", frame });
    this.#sender = new SnapshotSender({
      store,
      clock,
      log,
      flush: () => port.flush(),
      describe: (copy) => this.#describe(copy),
      applied: () => port.applied(),
      compacted: () => port.raft()?.compactedIndex ?? asIndex(0),
      isStateWrong: () => port.isStateWrong(),
      progress: (peer) => {
        const raft = port.raft();
        const match = raft?.progress().get(peer)?.match;
        if (raft === null || match === undefined) return null;
        return { match, isNear: isNear(raft, match) };
      },
      logBytes: () => port.logBytes(),
      send,
      waitingBytes: (to) => port.waitingBytes(to),
    });
    this.#receiver = new SnapshotReceiver({
      store,
      clock,
      log,
      wanted: ({ index, term }) => {
        const raft = port.raft();
        if (raft === null || raft.role === "leader") return false;
        if (raft.termAt(index) !== term) return index > raft.commit;
        return port.isStateWrong() && index >= Math.max(raft.compactedIndex, this.#forgotten);
      },
      notWanted: (manifest) => port.raft()?.snapshotNotNeeded(manifest),
      install: (manifest) => this.#install(manifest),
      fatal: (error) => port.fatal(error),
      send,
    });
  }

  /** The log must keep every entry behind this index, for members on their way; null: for nobody. */
  get floor(): LogIndex | null {
    const raft = this.#port.raft();
    // The state that will take the place of the wrong one goes on from this log.
    if (raft !== null && this.#port.isStateWrong() && this.#port.logBytes() <= RETAINED_BYTES_MAX)
      return raft.compactedIndex;
    const own = this.#sender.floor;
    const inherited = this.#inherited?.index ?? null;
    if (own === null || inherited === null) return own ?? inherited;
    return asIndex(Math.min(own, inherited));
  }

  /** The leader's own floor, as it says regularly. What else it says is none. */
  leaderKeeps(floor: unknown): void {
    const until = this.#port.clock.monotonic() + INHERITED_MS;
    this.#inherited = typeof floor === "number" ? { index: asIndex(floor), until } : null;
  }

  /** The log forgets what is up to `index`, from now on or by and by. */
  compacting(index: LogIndex): void {
    this.#forgotten = index;
  }

  /** What comes in, bytes; null while nothing does. */
  get receiving(): { readonly bytes: number; readonly of: number } | null {
    return this.#receiver.receiving;
  }

  /** Since the start. */
  get counters(): {
    readonly snapshotsInstalled: number;
    readonly snapshotBytesSent: number;
    readonly snapshotReceiversDropped: number;
  } {
    return {
      snapshotReceiversDropped: this.#sender.dropped,
      snapshotsInstalled: this.#receiver.installed,
      snapshotBytesSent: this.#sender.sentBytes,
    };
  }

  /** The core's effects: who needs one from this leader, and what a leader offers to this member. */
  carryOut({ snapshots, install }: Pick<Effects, "snapshots" | "install">): void {
    for (const peer of snapshots) this.#sender.offered(peer);
    if (install !== null) this.#receiver.offered(install.from);
  }

  frame(from: NodeId, frame: SnapshotFrame): void {
    this.#sender.frame(from, frame);
    this.#receiver.frame(from, frame);
  }

  /** The state was found to differ from the others': it is copied for nobody. */
  condemned(): void {
    this.#sender.disown();
  }

  connected(peer: NodeId): void {
    this.#receiver.connected(peer);
  }

  /** On every tick. */
  sweep(now: Millis): void {
    this.#sender.sweep(now);
    if (this.#inherited !== null && this.#isSpent(this.#inherited.until, now))
      this.#inherited = null;
    this.#receiver.sweep(now);
    this.#mend(now);
  }

  async stop(): Promise<void> {
    await this.#port.store.close();
  }

  /** Too long, too large, or nobody is behind any more. */
  #isSpent(until: Millis, now: Millis): boolean {
    if (now >= until || this.#port.logBytes() > RETAINED_BYTES_MAX) return true;
    const raft = this.#port.raft();
    if (raft?.role !== "leader") return false;
    return [...raft.progress().values()].every(({ match }) => isNear(raft, match));
  }

  #describe(copy: SnapshotCopy): SnapshotManifest | null {
    const raft = this.#port.raft();
    const bootstrap = this.#port.record();
    if (raft === null || bootstrap === null || copy.index < raft.compactedIndex) return null;
    return { ...copy, configuration: raft.configurationAt(copy.index), bootstrap };
  }

  /** Takes another state from the leader when this one is wrong. */
  #mend(now: Millis): void {
    if (!this.#pace.isDue(now, this.#port.isStateWrong())) return;
    const raft = this.#port.raft();
    if (raft === null || raft.role === "leader" || raft.leader === null) return;
    this.#pace.tried(now);
    this.#receiver.offered(raft.leader);
  }

  /** The log is right, and holds all that was promised: it stays. */
  async #replaceState(raft: Raft, manifest: SnapshotManifest): Promise<void> {
    const { clock, log, store } = this.#port;
    const deadline = clock.monotonic() + CATCH_UP_MS;
    while (raft.applicable < manifest.index) {
      if (clock.monotonic() > deadline) throw new Error("this log does not reach it yet");
      await new Promise<void>((resolve) => void clock.after(CATCH_UP_LOOK_MS, resolve));
    }
    // It was asked before the wait. A leader stands still for nobody, and behind what is forgotten nothing could be applied.
    if (raft.role === "leader" || manifest.index < raft.compactedIndex)
      throw new Error("this member leads by now, or its log has gone on without it");
    const goOn = this.#port.halt();
    try {
      await store.replaceState(manifest);
      // The one before it may have applied less: it may have been too wrong to.
      if (manifest.index > raft.appliedIndex) raft.applied(manifest.index);
      this.#port.stateReplaced(manifest);
      log.warn("the state that was wrong is replaced; it is kept beside it", {
        index: manifest.index,
      });
    } finally {
      goOn();
    }
  }

  async #install(manifest: SnapshotManifest): Promise<void> {
    const raft = this.#port.raft();
    if (raft === null) throw new Error("there is no log to replace");
    if (raft.termAt(manifest.index) === manifest.term) {
      await this.#replaceState(raft, manifest);
      return;
    }
    const goOn = this.#port.halt();
    try {
      await this.#port.store.install(manifest, foundationsOf(manifest));
      const { index, term, configuration } = manifest;
      try {
        raft.snapshotInstalled({ index, term, configuration });
        this.#port.installed(manifest);
      } catch (error) {
        // The files are the new ones already: what is in memory does not match them, only a start does.
        throw new FatalError(
          `after the install of a snapshot: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    } finally {
      goOn();
    }
  }
}

/** All that a member with `match` lacks is in memory. */
function isNear(raft: Raft, match: LogIndex): boolean {
  const next = asIndex(match + 1);
  return next > raft.lastIndex || raft.entriesFromCache(next, next) !== null;
}

/** The configuration as of the compacted index, by what compaction, or an install, kept; null: nothing was. */
export function configurationOf(foundations: readonly Entry[]): Configuration | null {
  const newest = foundations.at(-1);
  return newest === undefined ? null : decodeConfigurationEntry(newest);
}

/** What a log that begins behind the snapshot must know of what lies before: entry 1, and who the members are. */
export function foundationsOf({
  bootstrap,
  configuration,
  index,
  term,
}: Pick<SnapshotManifest, "bootstrap" | "configuration" | "index" | "term">): readonly Entry[] {
  return [
    {
      index: asIndex(1),
      term: asTerm(1),
      kind: "bootstrap",
      data: encodeBootstrap(firstConfiguration(bootstrap), bootstrap),
    },
    { index, term, kind: "config", data: encodeConfiguration(configuration) },
  ];
}
