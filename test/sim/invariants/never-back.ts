/**
 * I2: term and vote on a disk never go back, restarts included; applied, the commit index and leadership's term never in a
 * process. A core begins with a commit index that is no lower than what its state has applied, and than what its log has
 * dropped. What was applied may go back with a loss of power, and what is known to be committed with it: neither is
 * promised to anybody before it is on a quorum's disks.
 */
import type { Message, PersistOp } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { CoreState, Invariant } from "./invariant.ts";

/** A core, and the furthest that it has said to be committed. */
interface Committed {
  readonly core: object;
  commit: number;
}

export class NeverBack implements Invariant {
  readonly #sim: Simulation;
  readonly #applied = new Map<SimNode, number>();
  readonly #committed = new Map<SimNode, Committed>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#applied.set(node, node.startedAt);
    if (node.startedAt > node.disk.entries.length)
      this.#sim.fail("I10", `${node.id} starts at ${node.startedAt}, its log ends before`);
    this.#commits(node);
  }

  installed(node: SimNode): void {
    const before = this.#applied.get(node) ?? 0;
    // Where log and state are taken anew, the repair begins with nothing; one of the state alone, where the others are.
    if (node.startedAt <= before && node.owes === null && !node.replacedWrong)
      this.#sim.fail("I2", `${node.id} goes from ${before} to a snapshot of ${node.startedAt}`);
    this.#applied.set(node, node.startedAt);
  }

  writing({ id, disk }: SimNode, { hardState }: PersistOp): void {
    if (hardState === null) return;
    const { term, vote } = disk.hardState;
    if (hardState.term < term)
      this.#sim.fail("I2", `the term of ${id} goes from ${term} to ${hardState.term}`);
    if (hardState.term === term && vote !== null && hardState.vote !== vote)
      this.#sim.fail("I2", `${id} changes its vote of term ${term}: ${vote} to ${hardState.vote}`);
  }

  leadership({ id, disk }: SimNode, { term }: Leadership): void {
    // Term 0: the core has not said anything yet.
    if (term > 0 && term < disk.hardState.term)
      this.#sim.fail("I2", `${id} acts in term ${term}, its disk knows ${disk.hardState.term}`);
  }

  applied(node: SimNode, { index }: CommittedEntry): void {
    const before = this.#applied.get(node) ?? 0;
    if (index !== before + 1) this.#sim.fail("I2", `${node.id} applies ${index} after ${before}`);
    this.#applied.set(node, index);
  }

  took(node: SimNode, message: Message, before: CoreState, after: CoreState): void {
    if (after.commit < before.commit)
      this.#sim.fail(
        "I2",
        `the commit index of ${node.id} goes from ${before.commit} to ${after.commit} by the ${message.type} of ${message.from}`,
      );
    this.#commits(node);
  }

  /** What no message did: a write that was answered, an install, a tick. */
  often(): void {
    for (const node of this.#sim.nodes) if (node.up) this.#commits(node);
  }

  #commits(node: SimNode): void {
    const core = node.replica?.core ?? null;
    if (core === null) return;
    const { commit } = core;
    const known = this.#committed.get(node);
    if (known?.core !== core) {
      this.#begins(node, commit);
      this.#committed.set(node, { core, commit });
      return;
    }
    if (commit < known.commit)
      this.#sim.fail("I2", `the commit index of ${node.id} goes from ${known.commit} to ${commit}`);
    known.commit = commit;
  }

  #begins({ id, startedAt, disk }: SimNode, commit: number): void {
    const least = Math.max(startedAt, disk.compacted.index);
    if (commit < least)
      this.#sim.fail(
        "I2",
        `${id} takes its log for committed up to ${commit} when it begins, its folder knows ${least}`,
      );
  }
}
