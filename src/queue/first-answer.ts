/**
 * The first answer to a POST with an Idempotency-Key, as it is kept beside the key: complete, so that it can
 * be given again when its tasks have gone on, ended, or been cleared. Tasks are kept as of the command that
 * answered with them. A submit's payloads are not: whoever repeats it sends the same bytes again (the key's
 * hash says so), and they are taken from there.
 */
import type { Answer, AnswerValue, Command } from "./commands.ts";
import type { ClaimedTask, Task } from "./types.ts";

type Given = Extract<Answer, { readonly ok: true }>;

/** Many tasks of one answer, most of them alike: what all share is written once, nulls not at all. */
interface PackedTasks {
  readonly common: Partial<Task>;
  readonly each: readonly Partial<Task>[];
}

type StoredValue =
  | { readonly type: "submitted"; readonly existing: boolean; readonly tasks: PackedTasks }
  | { readonly type: "retried"; readonly tasks: PackedTasks }
  | { readonly type: "claimed"; readonly tasks: PackedTasks }
  | Exclude<AnswerValue, { readonly type: "submitted" | "retried" | "claimed" }>;

/** A compile error here names a field of a task that may be null and is new. */
const NULLS: { readonly [K in keyof Task as null extends Task[K] ? K : never]: null } = {
  detail: null,
  payload: null,
  started_at: null,
  completed_at: null,
  timeout_ms: null,
  result: null,
  last_error: null,
  progress: null,
  lease: null,
};

/**
 * Whether an answer is kept: one that did something is. A refusal changed nothing, so that its repeat is
 * judged anew; so is a claim that found nothing, and ends or reports of which every item was refused.
 */
export function isKept(answer: Answer): answer is Given {
  if (!answer.ok) return false;
  const { value } = answer;
  if (value.type === "claimed") return value.tasks.length > 0;
  if (value.type === "ended")
    return value.items.some((said) => said === "ok" || said === "cancelled");
  return true;
}

/** As text for the key's row. `value` of a submit or a retry holds its tasks already. */
export function packAnswer({ value }: Given): string {
  return JSON.stringify(storedValue(value));
}

function storedValue(value: AnswerValue): StoredValue {
  switch (value.type) {
    case "submitted": {
      const { existing, tasks = [] } = value;
      return { type: "submitted", existing, tasks: packTasks(tasks, ["payload"]) };
    }
    case "retried":
      return { type: "retried", tasks: packTasks(value.task === undefined ? [] : [value.task]) };
    case "claimed":
      return { type: "claimed", tasks: packTasks(value.tasks) };
    case "cancelled":
    case "cleared":
    case "settings":
    case "ended":
    case "remembered":
    case "done":
      return value;
  }
}

/**
 * The answer again. `command` is the repeat, for a submit's payloads; null where only other answers can be
 * asked for.
 */
export function unpackAnswer(text: string, command: Command | null): Given {
  return { ok: true, replayed: true, value: givenValue(JSON.parse(text) as StoredValue, command) };
}

function givenValue(stored: StoredValue, command: Command | null): AnswerValue {
  switch (stored.type) {
    case "submitted": {
      const sent = command?.type === "submit" ? command.tasks : [];
      const tasks = unpackTasks(stored.tasks).map((task, index) => ({
        ...task,
        payload: sent[index]?.payload ?? null,
      }));
      return {
        type: "submitted",
        ids: tasks.map(({ id }) => id),
        existing: stored.existing,
        tasks,
      };
    }
    case "retried": {
      const [task] = unpackTasks(stored.tasks);
      return task === undefined
        ? { type: "retried", id: "" }
        : { type: "retried", id: task.id, task };
    }
    case "claimed":
      return { type: "claimed", tasks: unpackTasks(stored.tasks) as ClaimedTask[] };
    case "cancelled":
    case "cleared":
    case "settings":
    case "ended":
    case "remembered":
    case "done":
      return stored;
  }
}

function packTasks(tasks: readonly Task[], omitted: readonly (keyof Task)[] = []): PackedTasks {
  const [first, ...rest] = tasks;
  if (first === undefined) return { common: {}, each: [] };
  const common: Record<string, unknown> = {};
  const each = tasks.map((): Record<string, unknown> => ({}));
  for (const key of Object.keys(first) as (keyof Task)[]) {
    if (omitted.includes(key)) continue;
    if (rest.every((task) => equal(task[key], first[key]))) {
      if (first[key] !== null) common[key] = first[key];
      continue;
    }
    for (const [index, task] of tasks.entries()) {
      const own = each[index];
      if (own !== undefined && task[key] !== null) own[key] = task[key];
    }
  }
  return { common, each };
}

function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object") return false;
  return JSON.stringify(a) === JSON.stringify(b);
}

function unpackTasks({ common, each }: PackedTasks): Task[] {
  return each.map((own) => ({ ...NULLS, ...common, ...own }) as Task);
}
