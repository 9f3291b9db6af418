/** The cluster's settings: what they may be, reading them from entry 1, and changing some of them. */
import { DEFAULT_LOG_TAIL, DEFAULT_SETTINGS, type Settings, type SettingsChange } from "./types.ts";

const SECOND_MS = 1_000;
const HOUR_MS = 3_600 * SECOND_MS;
const DAY_MS = 24 * HOUR_MS;

/**
 * What each setting may be, for flags and requests alike; milliseconds, bytes, counts. The log does not judge:
 * what is in it was within the limits of whoever wrote it.
 */
export const SETTING_LIMITS = {
  /** Below 100 ms a pause of a garbage collector loses leases; above a day a dead worker is not missed in time. */
  lease: { min: 100, max: 24 * HOUR_MS },
  /** 0: deleted as soon as they have ended. Ten years are "for ever" for a queue. */
  retention: { min: 0, max: 3_650 * DAY_MS },
  /** The least that an error of the payload itself fits into; a request of 8 MiB holds two of the largest. */
  max_payload: { min: 1_024, max: 4 * 1_024 * 1_024 },
  /** 1 still lets a task through; a thousand million rows are more than a member can hold. */
  max_waiting: { min: 1, max: 1_000_000_000 },
  /** 0: the first crash is the last; beyond a thousand crashes the task is to blame. */
  max_crashes: { min: 0, max: 1_000 },
  /** Of one attempt. 7 days: longer work belongs into several tasks. */
  timeout_ms: { min: 1, max: 7 * DAY_MS },
  /** A delay between attempts; a task that is to wait for longer has `run_at`. */
  retry_ms: { min: 0, max: 7 * DAY_MS },
  /** 1: equal delays; above a hundred the second retry is beyond any limit. */
  retry_factor: { min: 1, max: 100 },
  /** A step of the log's marks; 64 GiB are more than is worth sending instead of any state. */
  log_tail_bytes: { min: 1_024 * 1_024, max: 64 * 1_024 ** 3 },
  /** 0: nothing is kept for being young. */
  log_young_bytes: { min: 0, max: 64 * 1_024 ** 3 },
  /** A member that restarts is away for some seconds; after a month it is new. */
  log_tail_ms: { min: 60_000, max: 30 * DAY_MS },
  log_young_ms: { min: 0, max: DAY_MS },
} as const;

/** The machine version from which `log_tail` is a setting; before it, nothing that an entry does may know it. */
export const LOG_TAIL_SINCE = 2;

/**
 * `changes` over `settings`, as this machine version has them; nested groups are merged field by field, unknown fields
 * are dropped. The order of the fields is part of the format: the text is kept, and goes into the chain.
 */
export function mergeSettings(
  settings: Settings,
  changes: SettingsChange,
  machineVersion: number,
): Settings {
  const merged = mergeFirst(settings, changes);
  if (machineVersion < LOG_TAIL_SINCE) return merged;
  const tail = settings.log_tail ?? DEFAULT_LOG_TAIL;
  return {
    ...merged,
    log_tail: {
      max_bytes: changes.log_tail?.max_bytes ?? tail.max_bytes,
      max_ms: changes.log_tail?.max_ms ?? tail.max_ms,
      young_bytes: changes.log_tail?.young_bytes ?? tail.young_bytes,
      young_ms: changes.log_tail?.young_ms ?? tail.young_ms,
    },
  };
}

/** As machine version 1 does it, and every later one with what it knew. */
function mergeFirst(settings: Settings, changes: SettingsChange): Settings {
  return {
    lease: changes.lease ?? settings.lease,
    retention: {
      completed: changes.retention?.completed ?? settings.retention.completed,
      cancelled: changes.retention?.cancelled ?? settings.retention.cancelled,
      failed: changes.retention?.failed ?? settings.retention.failed,
    },
    max_payload: changes.max_payload ?? settings.max_payload,
    max_waiting: changes.max_waiting ?? settings.max_waiting,
    max_crashes: changes.max_crashes ?? settings.max_crashes,
    retry: {
      kind: changes.retry?.kind ?? settings.retry.kind,
      initial_ms: changes.retry?.initial_ms ?? settings.retry.initial_ms,
      factor: changes.retry?.factor ?? settings.retry.factor,
      max_ms: changes.retry?.max_ms ?? settings.retry.max_ms,
      jitter: changes.retry?.jitter ?? settings.retry.jitter,
    },
    // Null is a value here: no time-out.
    timeout_ms: changes.timeout_ms === undefined ? settings.timeout_ms : changes.timeout_ms,
  };
}

/** The settings that entry 1 carries, over the defaults. */
export function bootstrapSettings(record: unknown, machineVersion: number): Settings {
  const given = typeof record === "object" && record !== null ? (record as SettingsChange) : {};
  return mergeSettings(DEFAULT_SETTINGS, given, machineVersion);
}
