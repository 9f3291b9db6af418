/**
 * T2: who asked is answered for what it asked. A command is known by its member, start and number; an answer under these
 * that belongs to another command was asked by an earlier folder of the same id.
 */
import type { Answer } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class OwnAnswers implements Invariant {
  readonly #sim: Simulation;
  /** Of each answer that a machine gave in this event: to which commands, since one object may say the same to several. */
  readonly #given = new Map<unknown, Uint8Array[]>();
  #event = -1;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  applied(_node: SimNode, { requests }: CommittedEntry, answers: readonly Answer[]): void {
    const { events } = this.#sim.world;
    if (events !== this.#event) this.#given.clear();
    this.#event = events;
    for (const [i, { command }] of requests.entries()) {
      const given = this.#given.get(answers[i]);
      if (given === undefined) this.#given.set(answers[i], [command]);
      else given.push(command);
    }
  }

  answered({ id }: SimNode, asked: Uint8Array, answer: unknown): void {
    if (this.#event !== this.#sim.world.events) return;
    const to = this.#given.get(answer);
    if (to === undefined || to.some((command) => Buffer.compare(command, asked) === 0)) return;
    this.#sim.fail("T2", `${id} takes the answer to another command for the one to its own`);
  }
}
