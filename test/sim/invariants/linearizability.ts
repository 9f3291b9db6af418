/**
 * I16: every answer stands for a log index, and whoever begins after another call has ended stands behind it. That index is a
 * witness: if all answers fit theirs, and the indexes respect real time, the history is linearizable, and no search is needed.
 */
import { FINAL_STATUSES, STATUSES, type Status, type Task } from "../../../src/queue/types.ts";
import type { Told } from "../history.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

type Of<Type extends Told["type"]> = Extract<Told, { readonly type: Type }>;

export class Linearizability implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  told(told: Told): void {
    const { ledger } = this.#sim;
    switch (told.type) {
      case "submitted":
      case "created":
        this.#submitted(told);
        return;
      case "cancelled":
        this.#isLogged(`the cancel of ${told.id}`, ledger.cancelledAt.get(told.id));
        return;
      case "completed": {
        const { task_id, fence } = told.lease;
        const endedAt = ledger.completed.has(fence) ? ledger.endedAt.get(fence) : undefined;
        this.#isLogged(`the completion of ${task_id}`, endedAt);
        return;
      }
      case "claimed":
        for (const { id, lease } of told.tasks)
          this.#isLogged(`the claim of ${id}`, ledger.claimedAt.get(lease.fence));
        return;
      case "waited":
        this.#waited(told);
        return;
      case "read":
        this.#isBehind(told);
        this.#read(told);
        return;
      case "listed":
        this.#isBehind(told);
        this.#listed(told);
        return;
      case "counted":
        this.#isBehind(told);
        this.#counted(told);
        return;
      case "refused":
      case "heartbeat":
      case "under-key":
      case "refused-under-key":
      case "mismatched":
        return;
    }
  }

  #isLogged(what: string, index: number | undefined): void {
    if (index === undefined) this.#fail(`${what} was acknowledged and is not in the log`);
  }

  #isBehind({ index, since }: { readonly index: number; readonly since: number }): void {
    if (index < since)
      this.#fail(`a read was served at ${index}, though ${since} was seen before it began`);
  }

  #submitted({ type, ids, since }: Of<"submitted" | "created">): void {
    for (const id of ids) {
      const index = this.#sim.ledger.tasks.get(id)?.moments[0]?.index;
      if (type === "created" && index !== undefined && index <= since)
        this.#fail(
          `the submit of ${id} began after index ${since} was seen and stands at ${index}`,
        );
      this.#isLogged(`the submit of ${id}`, index);
    }
  }

  /** The task is as it was at some moment of the wait. */
  #waited({ id, task, since, lastedMs, waitMs }: Of<"waited">): void {
    const { ledger } = this.#sim;
    if (task === null) {
      const moments = ledger.tasks.get(id)?.moments ?? [];
      const ever = moments.some(({ index, status }) => index > since && status === null);
      const then = ledger.at(id, since)?.status ?? null;
      if (then !== null && !ever) this.#fail(`${id} was gone for whoever waited, and was ${then}`);
      return;
    }
    const known = ledger.at(id, task.version);
    if (known?.index !== task.version || known.status !== task.status)
      this.#fail(
        `${id} was ${task.status} in version ${task.version} after a wait, and was ${known?.status} in ${known?.index}`,
      );
    const before = ledger.at(id, since)?.index ?? 0;
    if (task.version < before)
      this.#fail(`${id} was in version ${task.version} after a wait that began behind ${before}`);
    if (FINAL_STATUSES.includes(task.status)) return;
    // The slowest clock loses a tenth.
    if (lastedMs < waitMs * 0.9 - 1)
      this.#fail(`a wait of ${waitMs} ms for ${id} ended after ${lastedMs} ms, and it had not`);
  }

  #read({ id, task, index }: Of<"read">): void {
    const moment = this.#sim.ledger.at(id, index);
    const status = moment?.status ?? null;
    if (statusOf(task) !== status)
      this.#fail(`${id} was read as ${statusOf(task) ?? "absent"} at ${index}, and was ${status}`);
    else if (task !== null && task.version !== moment?.index)
      this.#fail(
        `${id} was read in version ${task.version} at ${index}, and was in ${moment?.index}`,
      );
  }

  #listed({ tasks, index, whole }: Of<"listed">): void {
    const { ledger, appliedMax } = this.#sim;
    for (const { id, status } of tasks) {
      const known = ledger.at(id, index)?.status ?? null;
      if (known !== status)
        this.#fail(`${id} was listed as ${status} at ${index}, and was ${known}`);
    }
    if (!whole || index !== appliedMax || tasks.length === ledger.live) return;
    this.#fail(`${tasks.length} tasks were listed at ${index}, there are ${ledger.live}`);
  }

  #counted({ stats, index }: Of<"counted">): void {
    const { ledger, appliedMax } = this.#sim;
    if (index !== appliedMax) return;
    for (const status of STATUSES) {
      if (stats[status] !== ledger.counts[status])
        this.#fail(
          `${stats[status]} ${status} were counted at ${index}, there are ${ledger.counts[status]}`,
        );
    }
  }

  #fail(what: string): void {
    this.#sim.fail("I16", what);
  }
}

function statusOf(task: Task | null): Status | null {
  return task?.status ?? null;
}
