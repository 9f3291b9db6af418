/**
 * The shapes of requests and answers, written once: TypeScript types, validation (validation.ts) and the
 * OpenAPI document (openapi.ts) all come from here.
 *
 * They are Elysia's `t` schemas, but not validated by Elysia: it drops unknown fields in silence, takes "5"
 * for an integer and stops at the first error. Hence plain JSON Schema keywords, and three of our own:
 * `x-max-bytes` (bytes of UTF-8), `x-raw-json` (kept as sent) and `x-plain` (no control characters).
 */
import { t, type Static, type TSchema } from "elysia";
import { SETTING_LIMITS } from "../queue/settings.ts";
import { DETAILS, LIMITS, STATUSES, type Settings } from "../queue/types.ts";
import type { RawJson } from "./raw-json.ts";

/** Of snoozes and of delays that a worker asks for: as long as those of a retry policy. */
const DELAY_MAX_MS = SETTING_LIMITS.retry_ms.max;
/** A hundred failures with the longest delays are more than a year and a half. */
const RETRIES_MAX = 100;
/** A heartbeat or a completion names at most as many leases as a claim may take. */
const LEASES_MAX = LIMITS.claimMax;
const LINES_MAX = 1_000;

/** What `t.Object` makes: the kind of schema that parameters have. */
export type ObjectSchema = TSchema & {
  readonly properties: Readonly<Record<string, TSchema>>;
  readonly required?: readonly string[] | undefined;
};

/** What a text may not be. `title` says so to whoever sent it. */
interface Reserved {
  readonly title: string;
  readonly enum?: readonly string[];
  readonly pattern?: string;
}

interface Described {
  readonly description?: string;
  readonly default?: unknown;
  readonly example?: unknown;
  readonly not?: Reserved;
}

const integer = (minimum: number, maximum: number, rest: Described = {}) =>
  t.Unsafe<number>({ type: "integer", minimum, maximum, ...rest });
const number = (minimum: number, maximum: number, rest: Described = {}) =>
  t.Unsafe<number>({ type: "number", minimum, maximum, ...rest });
const boolean = (rest: Described = {}) => t.Unsafe<boolean>({ type: "boolean", ...rest });
const text = (maxBytes: number, rest: Described = {}) =>
  t.Unsafe<string>({ type: "string", "x-max-bytes": maxBytes, ...rest });
/** A name or key: not empty, bounded, no control characters. */
const name = (rest: Described = {}) =>
  t.Unsafe<string>({
    type: "string",
    minLength: 1,
    "x-max-bytes": LIMITS.name,
    "x-plain": true,
    ...rest,
  });
/** Of a task. "*" is how the members' built-in echo is listed, and would never be claimed. */
const taskName = (rest: Described = {}) =>
  name({ not: { title: 'must not be "*", which no task is named', enum: ["*"] }, ...rest });
const oneOf = <const T extends string>(values: readonly T[], rest: Described = {}) =>
  t.Unsafe<T>({ type: "string", enum: [...values], ...rest });
const nullable = <T extends TSchema>(schema: T, rest: Described = {}) =>
  t.Unsafe<Static<T> | null>({ anyOf: [schema, { type: "null" }], ...rest });
const optional = t.Optional;
const object = t.Object;
const time = (rest: Described = {}) =>
  t.Unsafe<string>({ type: "string", format: "date-time", ...rest });
const raw = (description: string) =>
  t.Unsafe<RawJson>({ description, "x-raw-json": true, example: { any: ["JSON", 1] } });
const list = <T extends TSchema>(
  items: T,
  minItems: number,
  maxItems: number,
  rest: Described = {},
) => t.Unsafe<Static<T>[]>({ type: "array", items, minItems, maxItems, ...rest });
/** A whole number that only grows: an index, a fence, a version. */
const counter = (rest: Described = {}) => integer(0, Number.MAX_SAFE_INTEGER, rest);
/** In answers: no limits worth telling. */
const opaque = (description: string) => t.Unsafe<unknown>({ description });

/** 8-4-4-4-12 in lower case; version and variant are checked with the time in it (new-task.ts). */
const TASK_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const id = (rest: Described = {}) =>
  t.Unsafe<string>({
    type: "string",
    format: "uuid",
    pattern: TASK_ID.source,
    example: "0192f6f1-7c3a-7d1e-9b52-3f6c1a2b4c5d",
    ...rest,
  });

// --- what clients send

/** What a setting may be: the same for a flag and for a request. */
const within = (setting: keyof typeof SETTING_LIMITS, rest: Described = {}) =>
  integer(SETTING_LIMITS[setting].min, SETTING_LIMITS[setting].max, rest);
const RetryIn = object({
  kind: optional(oneOf(["exponential", "fixed", "linear", "none"])),
  initial_ms: optional(within("retry_ms")),
  factor: optional(number(SETTING_LIMITS.retry_factor.min, SETTING_LIMITS.retry_factor.max)),
  max_ms: optional(within("retry_ms")),
  jitter: optional(boolean()),
});

export const Submit = object({
  id: optional(
    id({
      description:
        "UUIDv7 chosen by the client, at most an hour old: a repeat with an equal body answers the same task.",
    }),
  ),
  name: taskName({ description: "Which handler runs it.", example: "echo" }),
  payload: optional(raw("Any JSON value; kept as the bytes that were sent.")),
  queue: optional(name({ default: "default" })),
  priority: optional(integer(0, 9, { default: 5, description: "Higher first." })),
  max_retries: optional(
    integer(0, RETRIES_MAX, { default: 3, description: "Runs after the first one." }),
  ),
  run_at: optional(nullable(time(), { description: "Not before; absent or null: at once." })),
  timeout_ms: optional(
    nullable(within("timeout_ms"), { description: "Of one attempt; null: none." }),
  ),
  retry: optional(RetryIn),
});
export type Submit = Static<typeof Submit>;

export const SubmitBulk = object({ tasks: list(Submit, 1, LIMITS.bulkTasks) });
export const Empty = object({});

/** From 0: one less than the first is an old one, which is the queue's to refuse, not a malformed number. */
const leaseRef = {
  attempt: integer(0, Number.MAX_SAFE_INTEGER),
  fence: integer(0, Number.MAX_SAFE_INTEGER),
};
/** Any but those of the members' own executors, which anybody could else speak for in `/api/workers`. */
const worker_id = name({
  example: "worker-7",
  not: {
    title: "must not look like MEMBER/BOOT, the name of a member's own executors",
    pattern: "^[a-z0-9-]{1,32}/[0-9]+$",
  },
});
const ProgressIn = object({
  percent: number(0, 100),
  message: optional(nullable(text(LIMITS.errorMessage))),
});

export const ClaimIn = object({
  worker_id,
  request_id: optional(
    name({ description: "Repeating it returns the same tasks: a lost answer loses nothing." }),
  ),
  queues: optional(
    nullable(list(name(), 1, 1_000), { description: "Absent or null: every queue." }),
  ),
  names: optional(
    nullable(list(taskName(), 1, 1_000), { description: "Absent or null: every name." }),
  ),
  max: optional(integer(1, LIMITS.claimMax, { default: 1 })),
  wait_ms: optional(integer(0, LIMITS.waitMs, { default: 0 })),
});

export const HeartbeatIn = object({
  worker_id,
  leases: list(
    object({ task_id: id(), ...leaseRef, progress: optional(ProgressIn) }),
    0,
    LEASES_MAX,
  ),
});

export const CompleteBulkIn = object({
  worker_id,
  items: list(
    object({ task_id: id(), ...leaseRef, result: optional(raw("Any JSON value.")) }),
    1,
    LEASES_MAX,
  ),
});
export const CompleteIn = object({
  worker_id,
  ...leaseRef,
  result: optional(raw("Any JSON value.")),
});
/** Messages and stacks are cut, not refused: a worker must be able to report whatever it caught. */
const ErrorIn = object({
  type: optional(name({ default: "Error" })),
  message: t.Unsafe<string>({ type: "string" }),
  stack: optional(nullable(t.Unsafe<string>({ type: "string" }))),
});
const failure = {
  error: t.Unsafe<Static<typeof ErrorIn> | string>({
    anyOf: [{ type: "string" }, ErrorIn],
    description: "What went wrong. Message and stack are cut to 4 and 16 KiB.",
  }),
  retryable: optional(boolean({ default: true, description: "false: Failed at once." })),
  retry_after_ms: optional(
    nullable(integer(0, DELAY_MAX_MS), { description: "Instead of the policy's delay." }),
  ),
};
export const FailIn = object({ worker_id, ...leaseRef, ...failure });
export const FailBulkIn = object({
  worker_id,
  items: list(object({ task_id: id(), ...leaseRef, ...failure }), 1, LEASES_MAX),
});
export const SnoozeIn = object({ worker_id, ...leaseRef, delay_ms: integer(0, DELAY_MAX_MS) });
export const ReleaseIn = object({ worker_id, ...leaseRef });
export const ReleaseBulkIn = object({
  worker_id,
  items: list(object({ task_id: id(), ...leaseRef }), 1, LEASES_MAX),
});
export const LogsIn = object({
  worker_id,
  ...leaseRef,
  lines: list(t.Unsafe<string>({ type: "string" }), 1, LINES_MAX),
});

export const SettingsIn = object({
  lease: optional(within("lease", { description: "Milliseconds." })),
  retention: optional(
    object({
      completed: optional(within("retention", { description: "Milliseconds." })),
      cancelled: optional(within("retention", { description: "Milliseconds." })),
      failed: optional(within("retention", { description: "Milliseconds." })),
    }),
  ),
  max_payload: optional(
    within("max_payload", { description: "Bytes, of a payload and of a result." }),
  ),
  max_waiting: optional(within("max_waiting", { description: "Tasks." })),
  max_crashes: optional(within("max_crashes", { description: "Of one task." })),
  retry: optional(RetryIn),
  timeout_ms: optional(
    nullable(within("timeout_ms"), {
      description: "Milliseconds, of one attempt; null: none. For tasks that name none.",
    }),
  ),
  log_tail: optional(
    object({
      max_bytes: optional(
        within("log_tail_bytes", {
          description: "The log keeps a tail as long as the state, and no longer than this.",
        }),
      ),
      max_ms: optional(within("log_tail_ms", { description: "The log keeps nothing older." })),
      young_bytes: optional(
        within("log_young_bytes", {
          description:
            "What is younger than `young_ms` is kept up to this length (and `max_bytes`), however small the state is.",
        }),
      ),
      young_ms: optional(within("log_young_ms", { description: "Milliseconds." })),
    }),
  ),
});

const memberId = t.Unsafe<string>({
  type: "string",
  format: "member-id",
  pattern: "^[a-z0-9-]{1,32}$",
  description: "1 to 32 of a-z, 0-9 and -.",
  example: "n4",
});
export const MemberIn = object({
  id: memberId,
  url: text(2_048, {
    description: "Where clients and the other members reach it: scheme, host and port.",
    example: "http://10.0.0.4:3000",
  }),
  voter: optional(
    boolean({ description: "A voter once caught up, even if that makes their number even." }),
  ),
  replaces: optional(
    nullable(memberId, { description: "The member that goes when this one becomes a voter." }),
  ),
});
export const TransferIn = object({ to: memberId });

// --- parameters

export const MemberPath = object({ id: memberId });

const consistency = optional(
  oneOf(["linearizable", "stale"], {
    default: "linearizable",
    description: "stale: this member's own state, whose age the answer's headers tell.",
  }),
);
export const IdPath = object({ id: id() });
export const LeasePath = object({ task_id: id() });
export const WorkerPath = object({ id: name() });
export const ReadQuery = object({ consistency });
export const TaskQuery = object({
  consistency,
  wait: optional(
    number(0, LIMITS.waitMs / 1_000, { description: "Seconds to wait for a final status." }),
  ),
});
export const ListQuery = object({
  status: optional(list(oneOf(STATUSES), 1, 5, { description: "Repeated, or comma-separated." })),
  detail: optional(
    list(oneOf(DETAILS), 1, DETAILS.length, { description: "Repeated, or comma-separated." }),
  ),
  queue: optional(name()),
  name: optional(name()),
  q: optional(name({ description: "Prefix of the id or of the name." })),
  created_after: optional(time()),
  created_before: optional(time()),
  limit: optional(integer(1, LIMITS.listLimit, { default: 100 })),
  cursor: optional(text(2_048, { description: "From the Link header of the page before." })),
  consistency,
});
export const PageQuery = object({
  consistency,
  limit: optional(integer(1, LIMITS.listLimit, { default: 100 })),
  cursor: optional(text(2_048)),
});
export const ClearQuery = object({ status: optional(oneOf(STATUSES)) });
export const NoQuery = object({});

// --- what the API answers

const RetryOut = object({
  kind: oneOf(["exponential", "fixed", "linear", "none"]),
  initial_ms: counter(),
  factor: number(0, 100),
  max_ms: counter(),
  jitter: boolean(),
});
const ErrorOut = object({
  type: t.Unsafe<string>({ type: "string" }),
  message: t.Unsafe<string>({ type: "string" }),
  stack: nullable(t.Unsafe<string>({ type: "string" })),
  retryable: boolean(),
});
const string = t.Unsafe<string>({ type: "string" });
const TaskOut = object({
  id: id(),
  name: string,
  status: oneOf(STATUSES),
  created_at: time(),
  retries: counter(),
  max_retries: counter(),
  payload: opaque("As it was sent."),
  queue: string,
  priority: integer(0, 9),
  detail: nullable(oneOf(DETAILS)),
  attempt: counter(),
  crashes: counter(),
  run_at: time(),
  started_at: nullable(time()),
  completed_at: nullable(time()),
  timeout_ms: nullable(counter()),
  retry: RetryOut,
  result: opaque("As the worker sent it."),
  last_error: nullable(ErrorOut),
  progress: nullable(object({ percent: number(0, 100), message: nullable(string) })),
  lease: nullable(
    object({ worker: string, attempt: counter(), fence: counter(), expires_at: time() }),
  ),
  version: counter({ description: "Log index of the last change; also the ETag." }),
});
const taskRef = t.Unsafe<unknown>({ $ref: "#/components/schemas/Task" });
const directive = oneOf(["ok", "quiet", "terminate"]);
const settingsOut: Record<keyof Settings, TSchema> = {
  lease: counter(),
  retention: object({ completed: counter(), cancelled: counter(), failed: counter() }),
  max_payload: counter(),
  max_waiting: counter(),
  max_crashes: counter(),
  retry: RetryOut,
  timeout_ms: nullable(counter()),
  log_tail: optional(
    object({
      max_bytes: counter(),
      max_ms: counter(),
      young_bytes: counter(),
      young_ms: counter(),
    }),
  ),
};

const alarmsOut = list(
  object({
    kind: oneOf(["inconsistent", "clock-skew", "low-disk", "no-quorum", "stuck-executors"]),
    member: nullable(string),
    sentence: string,
  }),
  0,
  100,
);

const ClusterMemberOut = object({
  id: string,
  url: string,
  role: string,
  voter: boolean(),
  match_index: nullable(counter()),
  lag: nullable(counter()),
  reachable: boolean(),
  last_contact_ms: nullable(number(0, Number.MAX_SAFE_INTEGER)),
  round_trip_ms: nullable(number(0, Number.MAX_SAFE_INTEGER)),
  replication: nullable(string),
  waiting: nullable(string, { description: "Why a learner is no voter yet." }),
  replaces: nullable(string, {
    description: "The member that is removed when this learner becomes a voter, in its place.",
  }),
});

/** Everything under `components.schemas`, by name. */
export const MODELS = {
  Submit,
  SubmitBulk,
  Empty,
  Claim: ClaimIn,
  Heartbeat: HeartbeatIn,
  CompleteBulk: CompleteBulkIn,
  Complete: CompleteIn,
  Fail: FailIn,
  FailBulk: FailBulkIn,
  Snooze: SnoozeIn,
  Release: ReleaseIn,
  ReleaseBulk: ReleaseBulkIn,
  LogLines: LogsIn,
  SettingsChange: SettingsIn,
  Member: MemberIn,
  Transfer: TransferIn,
  Task: TaskOut,
  TaskList: list(taskRef, 0, LIMITS.listLimit),
  Submitted: object({ items: list(taskRef, 1, LIMITS.bulkTasks) }),
  Cleared: object({ message: string, cleared: counter() }),
  Attempts: object({
    items: list(
      object({
        attempt: counter(),
        fence: counter(),
        worker: string,
        started_at: time(),
        finished_at: nullable(time()),
        outcome: oneOf([
          "running",
          "completed",
          "failed",
          "timeout",
          "crashed",
          "cancelled",
          "snoozed",
          "released",
        ]),
        error: nullable(ErrorOut),
      }),
      0,
      LIMITS.attemptsKept,
    ),
    next_cursor: nullable(string),
  }),
  Logs: object({
    items: list(object({ attempt: counter(), at: time(), line: string }), 0, LIMITS.listLimit),
    next_cursor: nullable(string),
  }),
  Stats: object({
    stats: object({
      Pending: counter(),
      Running: counter(),
      Completed: counter(),
      Failed: counter(),
      Cancelled: counter(),
    }),
    total_tasks: counter(),
  }),
  Claimed: object({ tasks: list(taskRef, 0, LIMITS.claimMax), directive }),
  HeartbeatAnswer: object({
    leases: list(object({ task_id: id(), status: oneOf(["ok", "cancel", "lost"]) }), 0, LEASES_MAX),
    directive,
  }),
  Completed: object({
    items: list(
      object({
        task_id: id(),
        status: oneOf(["ok", "stale-lease", "cancelled", "forbidden", "not-found"]),
      }),
      1,
      LEASES_MAX,
    ),
  }),
  Ok: object({ status: oneOf(["ok"]) }),
  Workers: object({
    items: list(
      object({
        id: string,
        member: nullable(string),
        principal: string,
        queues: nullable(list(string, 0, 1_000)),
        names: nullable(list(string, 0, 1_000)),
        slots: nullable(counter(), {
          description: "null: an outside worker, whose claims say how many tasks it takes.",
        }),
        running: list(
          object({ task_id: id(), name: string, attempt: counter(), started_at: time() }),
          0,
          10_000,
        ),
        stuck: counter(),
        kills: counter(),
        restarts: counter(),
        directive,
        last_seen_ms: number(0, Number.MAX_SAFE_INTEGER),
      }),
      0,
      10_000,
    ),
    next_cursor: nullable(string),
  }),
  Cluster: object({
    cluster_id: nullable(string),
    node_id: string,
    role: string,
    term: counter(),
    leader_id: nullable(string),
    commit_index: counter(),
    applied_index: counter(),
    last_index: counter(),
    machine_version: object({
      in_force: counter(),
      newest: counter(),
      supported: nullable(counter()),
    }),
    snapshot: nullable(object({ received_bytes: counter(), size_bytes: counter() })),
    alarms: alarmsOut,
    members: list(ClusterMemberOut, 0, 100),
  }),
  ClusterMember: ClusterMemberOut,
  Leader: object({ leader_id: string }),
  Settings: object(settingsOut),
  Health: object({
    status: string,
    node_id: string,
    cluster_id: nullable(string),
    version: string,
    reason: optional(string),
    alarms: optional(alarmsOut),
  }),
  Problem: object({
    type: string,
    title: string,
    status: integer(400, 599),
    detail: string,
    code: string,
    errors: optional(list(object({ pointer: string, detail: string }), 0, 100)),
    request_id: string,
  }),
} satisfies Record<string, TSchema>;

export type ModelName = keyof typeof MODELS;
