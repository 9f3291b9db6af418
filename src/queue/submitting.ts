/** Submits: all of a command's tasks or none; client-given ids make a repeat harmless (T8). */
import type { Answer } from "./commands.ts";
import { PENDING } from "./rows.ts";
import { type TaskStore, uuidTime } from "./store.ts";
import { LIMITS, type NewTask } from "./types.ts";

/** Whether an id was deleted less than its time ago; the machine looks into its tombstones. */
export type Buried = (id: string) => boolean;

export function submitTasks(store: TaskStore, tasks: readonly NewTask[], buried: Buried): Answer {
  const fresh = new Map<string, NewTask>();
  for (const task of tasks) {
    const refusal = check(store, task, fresh.get(task.id), buried);
    if (refusal === "existing") continue;
    if (refusal !== null) return refusal;
    fresh.set(task.id, task);
  }
  if (store.counts[PENDING] + fresh.size > store.settings.max_waiting) {
    return {
      ok: false,
      code: "queue-full",
      detail: `${store.counts[PENDING]} tasks wait already, the limit is ${store.settings.max_waiting}`,
    };
  }
  for (const task of fresh.values()) store.insert(task);
  const ids = tasks.map((task) => task.id);
  return {
    ok: true,
    value: { type: "submitted", ids, existing: fresh.size === 0 && tasks.length > 0 },
  };
}

/** `existing`: an equal submit was applied before, or stands earlier in this command. Null: insert it. */
function check(
  store: TaskStore,
  task: NewTask,
  twin: NewTask | undefined,
  buried: Buried,
): Answer | "existing" | null {
  const conflict = (detail: string): Answer => ({
    ok: false,
    code: "id-conflict",
    id: task.id,
    detail,
  });
  const row = store.rowById(task.id);
  const known = twin ?? row;
  if (twin === undefined && row !== null && store.hidden(row)) {
    return conflict("the task with this id was cleared");
  }
  if (known !== null) {
    return task.body_hash !== null && known.body_hash === task.body_hash
      ? "existing"
      : conflict(
          known.body_hash === null
            ? "another task has this id"
            : "another task has this id: it was submitted with another body (payloads are compared as bytes, so white space counts)",
        );
  }
  if (task.body_hash === null) return null;
  if (buried(task.id)) return conflict("the task with this id was deleted");
  // Beyond this age its tombstone may be gone, and a repeat could run again.
  if (uuidTime(task.id) + LIMITS.clientIdAgeMs <= store.moment.now) {
    return {
      ok: false,
      code: "id-expired",
      id: task.id,
      detail: "the id is older than an hour: whether it was used before cannot be told",
    };
  }
  return null;
}
