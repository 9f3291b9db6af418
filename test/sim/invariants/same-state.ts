/**
 * I11: at an equal applied index every member has given the same answers, its chain is the same, and its state has
 * the same hash.
 */
import type { Answer } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** The chain of every index holds what decides; whole answers are compared at multiples of this one. */
const ANSWERS_EVERY = 4;

export class SameState implements Invariant {
  readonly #sim: Simulation;
  readonly #answers = new Map<number, number | bigint>();
  readonly #chains = new Map<number, { chain: string; node: string }>();
  readonly #hashes = new Map<number, { hash: string; node: string }>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  applied(node: SimNode, { index }: CommittedEntry, answers: readonly Answer[]): void {
    if (index % ANSWERS_EVERY === 0) this.#sameAnswers(node, index, answers);
    if (node.isSuspect) return;
    const chain = node.machine?.chainAt(index) ?? null;
    const first = this.#chains.get(index);
    if (first === undefined && chain !== null) this.#chains.set(index, { chain, node: node.id });
    else if (first !== undefined && chain !== null && first.chain !== chain)
      this.#sim.fail("I11", `the chains of ${node.id} and ${first.node} differ at ${index}`);
    if (index % this.#sim.options.hashEvery !== 0 || node.applied !== index) return;
    const hash = node.machine?.hash() ?? "";
    const other = this.#hashes.get(index);
    if (other === undefined) this.#hashes.set(index, { hash, node: node.id });
    else if (other.hash !== hash)
      this.#sim.fail("I11, Q9", `the states of ${node.id} and ${other.node} differ at ${index}`);
  }

  /** The members' own check of it, which runs all the time (T9), must not have cried wolf. */
  marked(): void {
    const { nodes } = this.#sim;
    // Two that are wrong alike may be the majority.
    if (nodes.filter(({ wasRotten }) => wasRotten).length > 1) return;
    const wrong = nodes.filter(({ wasRotten }) => wasRotten);
    for (const { id, replica, wasRotten } of nodes) {
      const condemned = wasRotten ? null : (replica?.condemned() ?? null);
      // While it takes another state it has none of its own.
      const { configuration } = replica?.core ?? this.#sim.membership ?? {};
      const voters = configuration?.voters ?? [];
      // So may one, who is the only voter left.
      const judges = voters.filter((voter) => wrong.some((node) => node.id === voter));
      if (condemned !== null && 2 * judges.length <= voters.length)
        this.#sim.fail("I11", `${id} takes itself for wrong: ${condemned}`);
    }
  }

  ended(): void {
    this.marked();
  }

  #sameAnswers(node: SimNode, index: number, answers: readonly Answer[]): void {
    // Answers hold payloads, and one of them is another somewhere.
    if (this.#sim.faults.struck.has("row-rot")) return;
    const digest = Bun.hash(JSON.stringify(answers));
    const known = this.#answers.get(index);
    if (known === undefined) this.#answers.set(index, digest);
    else if (known !== digest)
      this.#sim.fail("I11", `${node.id} answers the commands of ${index} unlike others`);
  }
}
