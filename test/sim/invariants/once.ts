/**
 * T2: a command that is logged twice (handed to a leader again, or to the next one, since no answer came) is carried out
 * once: every further time it is answered as the first time, or not at all, as one that its member has done with.
 */
import type { Answer } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class Once implements Invariant {
  readonly #sim: Simulation;
  /** What each command of a member was answered first, by boot and number. */
  readonly #answers = new Map<string, Map<string, unknown>>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged({ index, requests, members }: CommittedEntry, answers: readonly Answer[]): void {
    // Who comes back under the id of one that was removed counts from one again.
    if (members !== undefined)
      for (const id of this.#answers.keys())
        if (!members.some((member) => member === id)) this.#answers.delete(id);
    for (const [i, { member, boot, seq }] of requests.entries()) {
      const answer = answers[i];
      if (answer === undefined || (!answer.ok && answer.code === "stale-session")) continue;
      this.#check(index, member, `${boot}/${seq}`, decided(answer));
    }
  }

  #check(index: number, member: string, number: string, answer: unknown): void {
    const known = this.#answers.get(member) ?? new Map<string, unknown>();
    this.#answers.set(member, known);
    const first = known.get(number);
    if (first === undefined) known.set(number, answer);
    else if (!Bun.deepEquals(first, answer))
      this.#sim.fail(
        "T2",
        `command ${number} of ${member}, logged again at ${index}, is answered ${JSON.stringify(answer)}, and was ${JSON.stringify(first)}`,
      );
  }
}

/** Without the tasks themselves: a claim that is answered again shows those that are still held. */
function decided(answer: Answer): unknown {
  if (!answer.ok) return { code: answer.code };
  return { ...answer.value, tasks: null };
}
