/**
 * T8: an id that a client gave stands for one task, with one body, for as long as it is known: the same submit again is
 * answered with it, one with another body never, whatever became of the task since. Held against what was submitted,
 * beside the machine, so that an answer shows that gives somebody else's task for one's own.
 */
import type { Answer } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { Database } from "bun:sqlite";
import { commandsOf } from "../commands.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class OneIdOneBody implements Invariant {
  readonly #sim: Simulation;
  /** By id what its body hashed to; null: a member made the id up. */
  readonly #bodies = new Map<string, string | null>();
  /** Submits that were carried out, by member, boot and number, or by their key: they are answered as then. */
  readonly #done = new Set<string>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  begins(_machine: TaskMachine, db: Database): void {
    const sql = "SELECT id, body_hash FROM tasks";
    for (const { id, body_hash } of db
      .query<{ readonly id: string; readonly body_hash: string | null }, []>(sql)
      .all())
      this.#bodies.set(id, body_hash);
  }

  logged({ index, requests }: CommittedEntry, answers: readonly Answer[]): void {
    for (const [i, asked] of commandsOf({ requests }).entries()) {
      const answer = answers[i];
      const request = requests[i];
      if (asked.type !== "submit" || answer?.ok !== true || request === undefined) continue;
      if (this.#isRepeat(request, asked.idem)) continue;
      for (const { id, body_hash } of asked.tasks) {
        const known = this.#bodies.get(id);
        if (known === undefined) this.#bodies.set(id, body_hash);
        else if (known === null || known !== body_hash)
          this.#sim.fail(
            "T8",
            `the submit of ${id} at ${index} with the body ${body_hash} is answered with the task that was made with ${known}`,
          );
      }
    }
  }

  #isRepeat(
    { member, boot, seq }: CommittedEntry["requests"][number],
    idem: { readonly principal: string; readonly route: string; readonly key: string } | undefined,
  ): boolean {
    const names = [`${member} ${boot} ${seq}`];
    if (idem !== undefined) names.push(`${idem.principal} ${idem.route} ${idem.key}`);
    const known = names.some((name) => this.#done.has(name));
    for (const name of names) this.#done.add(name);
    return known;
  }
}
