/**
 * I2: term and vote on a disk never go back, restarts included; applied and leadership's term never in a process. What was
 * applied may go back with a loss of power; a commit index is not looked at, but for `LogBounds`: it stays above applied.
 */
import type { PersistOp } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class NeverBack implements Invariant {
  readonly #sim: Simulation;
  readonly #applied = new Map<SimNode, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#applied.set(node, node.startedAt);
    if (node.startedAt > node.disk.entries.length)
      this.#sim.fail("I10", `${node.id} starts at ${node.startedAt}, its log ends before`);
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
}
