/**
 * Calls under an idempotency key, made again at other members though they were answered, or because the answer got
 * lost: everybody is told what the first one was told, whatever became of it since. Refusals change nothing and are
 * not kept.
 */
import type { FlotillaQueue } from "../../src/queue/queue.ts";
import { QueueError, type QueueErrorCode } from "../../src/queue/service.ts";
import type { IdempotencyScope } from "../../src/queue/types.ts";
import { another } from "./claim-again.ts";
import type { SimNode } from "./node.ts";
import { streamOf } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

/** Says that the call was judged, and what it asked for is not to be had. */
const JUDGED: ReadonlySet<QueueErrorCode> = new Set([
  "not-found",
  "already-final",
  "not-final",
  "version-mismatch",
  "idempotency-mismatch",
]);

/** A key that every client uses, each as another principal and for more than one thing. */
export const commonKey = (n: number): string => `key-${n}`;

export class KeyedCalls {
  readonly #sim: Simulation;
  readonly #principal: string;
  readonly #prng: Prng;
  #keys = 0;

  constructor(sim: Simulation, principal: string, who: string) {
    this.#sim = sim;
    this.#principal = principal;
    this.#prng = streamOf(sim.options.seed, `keys of ${who}`);
  }

  /** Whether the next call bears a key, if this seed has any. */
  get next(): boolean {
    return this.#sim.options.families.has("keyed") && this.#prng.chance(0.4);
  }

  scope(route: string, who: string): IdempotencyScope {
    this.#keys += 1;
    // Others use such a key too, and whoever asks uses it for something else.
    const isCommon = this.#sim.options.families.has("stranger") && who === this.#principal;
    const key = isCommon ? commonKey(this.#keys) : `${who}-${route}-${this.#keys}`;
    return { principal: this.#principal, route, key, hash: this.#prng.hex(4) };
  }

  /**
   * The first answer that is heard; null: none was. `told`: what a repeat must be told again; undefined: nothing was done,
   * so that nothing is kept.
   */
  async call<T>(
    scope: IdempotencyScope,
    run: (queue: FlotillaQueue) => Promise<T>,
    told: (answer: T) => unknown,
  ): Promise<T | null> {
    const { faults } = this.#sim;
    let heard: T | null = null;
    let node: SimNode | null = null;
    for (let left = this.#prng.between(1, 3); left > 0; left--) {
      const twice = this.#prng.chance(0.2);
      const tries = Array.from({ length: twice ? 2 : 1 }, () => {
        node = another(this.#sim, this.#prng, node);
        return this.#try(scope, node, run, told);
      });
      for (const answer of await Promise.all(tries)) heard ??= answer;
      if (left > 1 || twice) faults.count("keyed");
      await this.#sim.sleep(this.#prng.pick([0, 0, 10, 500]) * this.#prng.float());
    }
    return heard;
  }

  async #try<T>(
    { principal, route, key }: IdempotencyScope,
    node: SimNode,
    run: (queue: FlotillaQueue) => Promise<T>,
    told: (answer: T) => unknown,
  ): Promise<T | null> {
    const { history } = this.#sim;
    const name = `${principal} ${route} ${key}`;
    // What was judged before may be heard after.
    const known = history.isAnswered(name);
    const refused = (why: string): void => {
      if (known) history.refusedUnder(name, why);
    };
    try {
      const answer = await this.#sim.call(node, run);
      const what = told(answer);
      if (what === undefined) refused("nothing");
      else history.answeredUnder(name, what);
      return answer;
    } catch (error) {
      if (error instanceof QueueError && error.reason === "idempotency-mismatch")
        history.mismatched(name);
      if (error instanceof QueueError && JUDGED.has(error.reason)) refused(error.reason);
      return null;
    }
  }
}
