/**
 * I14: each bound of a core holds as it was drawn for this run, however small: writes on their way to the disk, reads that
 * wait, appends on their way to a peer and their bytes, bytes that wait to be committed, or for the own disk, and the cache.
 */
import { DEFAULT_LIMITS, type CoreLimits } from "../../../src/raft/options.ts";
import { dataBytes } from "../../../src/raft/entry-cache.ts";
import { Raft } from "../../../src/raft/raft.ts";
import type { Entry, Message, NodeId, PersistOp } from "../../../src/raft/types.ts";
import { ENTRIES_IN_FLIGHT_MAX, FULL_ENTRIES_IN_FLIGHT_MAX } from "../../../src/replica/batcher.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { CoreState, Invariant } from "./invariant.ts";

/** A full entry holds a thousand commands. */
const FULL_BYTES_MIN = 20_000;
/** Reads of others that a leader holds: taken, and not answered. */
interface Held {
  readonly core: object;
  readonly term: number;
  count: number;
}

export class CoreLimitsHold implements Invariant {
  readonly #sim: Simulation;
  readonly #limits: CoreLimits;
  /** Of all entries that anybody wrote: one that is larger than a limit still passes, alone. */
  #largest = 0;
  /** Of all appends that anybody sent, in the bytes that a window counts. */
  #largestAppend = 0;
  readonly #reads = new Map<SimNode, Held>();
  /** The newest term that a member led. */
  readonly #led = new Map<SimNode, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
    this.#limits = { ...DEFAULT_LIMITS, ...sim.options.limits };
  }

  appending(_node: SimNode, { entries }: PersistOp): void {
    for (const { data } of entries) this.#largest = Math.max(this.#largest, dataBytes(data));
  }

  leadership(node: SimNode, { role, term }: Leadership): void {
    if (role === "leader") this.#led.set(node, term);
  }

  sent(node: SimNode, message: Message): void {
    if (message.type === "read-index-reply") {
      const held = this.#heldBy(node, message.term);
      if (held !== null && held.count > 0) held.count -= 1;
    }
    if (message.type !== "append" || message.entries.length === 0) return;
    this.#largestAppend = Math.max(this.#largestAppend, bytesOf(message.entries));
    const { maxAppendBytes } = this.#limits;
    // What was read back is counted without what an entry costs beside its data.
    const bytes = message.entries.reduce((sum, { data }) => sum + data.length, 0);
    if (message.entries.length > 1 && bytes > maxAppendBytes)
      this.#fail(
        `${node.id} sends ${message.entries.length} entries of ${bytes} bytes in one append, of ${maxAppendBytes}`,
      );
  }

  took(node: SimNode, message: Message, before: CoreState, after: CoreState): void {
    if (message.type === "read-index" && after.role === "leader" && message.term === after.term) {
      const held = this.#heldBy(node, after.term);
      if (held !== null) held.count += 1;
    }
    // Who wins a pre-vote stands for election, and has looked at its disk for that.
    if (message.type === "vote-reply") return;
    const unheard = node.store?.unheard ?? 0;
    if (unheard < this.#limits.maxWritesUnderWay) return;
    const writes =
      after.lastIndex !== before.lastIndex ||
      after.lastTerm !== before.lastTerm ||
      after.term !== before.term ||
      after.vote !== before.vote;
    // Who leads takes what it asked for, and a leader's own entries have a bound of their own.
    if (writes && before.role !== "leader")
      this.#fail(
        `${node.id} waits for ${unheard} writes of ${this.#limits.maxWritesUnderWay}, and takes the ${message.type} of ${message.from}`,
      );
  }

  often(): void {
    for (const node of this.#sim.nodes) {
      const core = node.replica?.core ?? null;
      // A driver that stands still has not carried out all yet; nor has one whose log is being replaced.
      if (!node.up || node.clock.still || !(core instanceof Raft)) continue;
      const { store, disk } = node;
      if (store === null || disk.installing !== null || core.lastIndex !== store.handed.length)
        continue;
      const undurable = store.handed.slice(core.durable);
      this.#cache(node.id, core, undurable);
      if (core.role === "leader") this.#leads(node, core, store.handed);
      else this.#follows(node, core, undurable);
    }
  }

  /** What is durable leaves the cache; what is not stays. */
  #cache(id: NodeId, core: Raft, undurable: readonly Entry[]): void {
    const most = Math.max(this.#limits.cacheBytes, bytesOf(undurable));
    if (core.cachedBytes > most)
      this.#fail(`${id} keeps ${core.cachedBytes} bytes of its log in memory, of ${most}`);
  }

  #leads(node: SimNode, core: Raft, log: readonly Entry[]): void {
    const { maxInflightMessages, maxInflightBytes, maxReadsWaiting } = this.#limits;
    // The append that crosses the limit still goes.
    const mostBytes = maxInflightBytes + this.#largestAppend;
    for (const [peer, { inflight, inflightBytes }] of core.progress())
      if (inflight > maxInflightMessages || inflightBytes > mostBytes)
        this.#fail(
          `${node.id} has ${inflight} appends of ${inflightBytes} bytes on their way to ${peer}, of ${maxInflightMessages} and ${mostBytes}`,
        );
    const reads = this.#heldBy(node, core.term)?.count ?? 0;
    if (reads > maxReadsWaiting)
      this.#fail(`${node.id} holds ${reads} reads of others, of ${maxReadsWaiting}`);
    this.#proposals(node.id, core, log);
  }

  #proposals(id: NodeId, core: Raft, log: readonly Entry[]): void {
    const { maxUncommittedBytes } = this.#limits;
    const open = log
      .slice(core.applicable)
      .filter(({ term, kind }) => term === core.term && kind === "command");
    const bytes = bytesOf(open);
    if (open.length > 1 && bytes > maxUncommittedBytes)
      this.#fail(`${id} has ${bytes} bytes to commit, of ${maxUncommittedBytes}`);
    const small = open.filter(({ data }) => data.length < FULL_BYTES_MIN).length;
    if (small > ENTRIES_IN_FLIGHT_MAX || open.length > FULL_ENTRIES_IN_FLIGHT_MAX)
      this.#fail(`${id} has ${open.length} entries to commit, of ${ENTRIES_IN_FLIGHT_MAX}`);
  }

  /** Of what its leader sent it; with nothing that waits, one append of any size is taken. */
  #follows(node: SimNode, core: Raft, undurable: readonly Entry[]): void {
    if (this.#led.get(node) === core.term) return;
    const { maxUncommittedBytes, maxAppendBytes } = this.#limits;
    const bytes = undurable
      .filter(({ term }) => term === core.term)
      .reduce((sum, { data }) => sum + data.length, 0);
    const most = Math.max(maxUncommittedBytes, maxAppendBytes, this.#largest);
    if (bytes > most)
      this.#fail(`${node.id} holds ${bytes} bytes that its disk has not, of ${most}`);
  }

  #heldBy(node: SimNode, term: number): Held | null {
    const core = node.replica?.core ?? null;
    if (core === null || core.role !== "leader" || core.term !== term) return null;
    const known = this.#reads.get(node);
    if (known?.core === core && known.term === term) return known;
    const held = { core, term, count: 0 };
    this.#reads.set(node, held);
    return held;
  }

  #fail(what: string): void {
    this.#sim.fail("I14", what);
  }
}

function bytesOf(entries: readonly Entry[]): number {
  return entries.reduce((sum, { data }) => sum + dataBytes(data), 0);
}
