/**
 * Q1, Q5: what a cancel or a retry is answered is how the task is then, where its entry does nothing else to that task; and
 * one that is retried keeps neither charges nor a result.
 */
import type { Answer, Command, Signal } from "../../../src/queue/commands.ts";
import type { Status } from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf, Judged } from "../commands.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

type Asked = Extract<Command, { readonly type: "cancel" | "retry" }>;

export class CancelAnswers implements Invariant {
  readonly #sim: Simulation;
  readonly #judged = new Judged();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(
    entry: CommittedEntry,
    answers: readonly Answer[],
    _signals: readonly Signal[],
    node: SimNode,
  ): void {
    const commands = commandsOf(entry);
    for (const [i, asked] of commands.entries()) {
      if (asked.type !== "cancel" && asked.type !== "retry") continue;
      const answer = answers[i];
      const request = entry.requests[i];
      if (answer === undefined || request === undefined) continue;
      const isNews = this.#judged.add(request) && asked.idem === undefined;
      if (isNews && isAlone(asked.id, i, commands) && !node.isSuspect)
        this.#isSo(asked, answer, node);
    }
  }

  #isSo({ type, id }: Asked, answer: Answer, { machine }: SimNode): void {
    const { status = null, cancelling = false } = this.#sim.ledger.tasks.get(id) ?? {};
    const said = answer.ok ? "ok" : answer.code;
    if (!isPossible(type, said, status, cancelling))
      this.#sim.fail(
        "Q1",
        `the ${type} of ${id} is answered ${said}, and it is ${status ?? "gone"}`,
      );
    if (type !== "retry" || !answer.ok) return;
    const { retries = 0, crashes = 0, result = null } = machine?.task(id) ?? {};
    if (retries > 0 || crashes > 0 || result !== null)
      this.#sim.fail(
        "Q5",
        `${id} is retried and keeps ${retries} retries, ${crashes} crashes, or a result`,
      );
  }
}

/** Nothing else in the entry can have changed the task, nor made it behind the command that asks. */
function isAlone(id: string, at: number, commands: readonly Command[]): boolean {
  let asked = 0;
  for (const [i, each] of commands.entries()) {
    if (each.type === "submit") {
      if (i > at && each.tasks.some((task) => task.id === id)) return false;
      continue;
    }
    if (each.type !== "cancel" && each.type !== "retry") return false;
    if (each.id === id) asked += 1;
  }
  return asked === 1;
}

function isPossible(
  type: Asked["type"],
  said: string,
  status: Status | null,
  cancelling: boolean,
): boolean {
  switch (said) {
    case "ok":
      if (type === "retry") return status === "Pending";
      return status === "Cancelled" || (status === "Running" && cancelling);
    case "not-found":
      return status === null;
    case "already-final":
      return status === "Completed" || status === "Failed";
    case "not-final":
      return status === "Pending" || status === "Running";
    default:
      return true;
  }
}
