/** What a client does wrong, and must be refused: a key, or an id, that stands for something is used for another body. */
import type { Submitted } from "../../src/queue/service.ts";
import type { IdempotencyScope, NewTask } from "../../src/queue/types.ts";
import { another } from "./claim-again.ts";
import type { SimNode } from "./node.ts";
import { streamOf } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import { EPOCH, type Prng } from "./world.ts";

const OWN_MAX = 40;

export interface SubmitCall {
  readonly tasks: readonly NewTask[];
  readonly idempotency: IdempotencyScope | null;
}

export class Misuse {
  readonly #sim: Simulation;
  readonly #name: string;
  /** One try; null: refused, or nobody knows. */
  readonly #ask: (call: SubmitCall, node: SimNode) => Promise<Submitted | null>;
  /** Decides when a key is used for something else. */
  readonly #misuse: Prng;
  /** Decides when an id is used for another body. */
  readonly #twins: Prng;
  /** Tasks under ids of this client's own that were submitted, oldest first. */
  readonly #own: NewTask[] = [];

  constructor(
    sim: Simulation,
    name: string,
    ask: (call: SubmitCall, node: SimNode) => Promise<Submitted | null>,
  ) {
    this.#sim = sim;
    this.#name = name;
    this.#ask = ask;
    this.#misuse = streamOf(sim.options.seed, `other bodies of ${name}`);
    this.#twins = streamOf(sim.options.seed, `twins of ${name}`);
  }

  /** Another body under a key that was answered: it must be refused, and nothing of it may happen. */
  async otherBody({ idempotency, tasks: [first] }: SubmitCall): Promise<void> {
    const { faults, mood, options, world } = this.#sim;
    if (idempotency === null || first === undefined || !mood.wild()) return;
    if (!options.families.has("stranger") || !this.#misuse.chance(0.3)) return;
    faults.count("stranger");
    const task = { ...first, id: this.#misuse.uuid(EPOCH + world.now), body_hash: null };
    const call = { tasks: [task], idempotency: { ...idempotency, hash: this.#misuse.hex(8) } };
    const node = another(this.#sim, this.#misuse, null);
    const answer = await this.#ask(call, node);
    if (answer !== null)
      this.#sim.fail(
        "Q3",
        `the key ${idempotency.key} of ${this.#name} was used with another body, and answered ${answer.ids.join(" ")}`,
      );
  }

  /** Another body under the id of a task, whatever became of that since: it must be refused. */
  async twin({ tasks }: SubmitCall): Promise<void> {
    const { faults, mood, options } = this.#sim;
    if (!options.families.has("twin") || !mood.wild()) return;
    this.#own.push(...tasks.filter(({ body_hash }) => body_hash !== null));
    if (this.#own.length > OWN_MAX) this.#own.splice(0, this.#own.length - OWN_MAX);
    if (this.#own.length === 0 || !this.#twins.chance(0.3)) return;
    faults.count("twin");
    const task = { ...this.#twins.pick(this.#own), body_hash: this.#twins.hex(9) };
    const node = another(this.#sim, this.#twins, null);
    const call = { tasks: [task], idempotency: null };
    const answer = await this.#ask(call, node);
    if (answer !== null)
      this.#sim.fail("T8", `${task.id} was submitted with another body, and that was taken for it`);
  }
}
