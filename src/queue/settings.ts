/** The cluster's settings: reading them from entry 1, and changing some of them. */
import { DEFAULT_SETTINGS, type Settings } from "./types.ts";

/** `changes` over `settings`; nested groups are merged field by field, unknown fields are dropped. */
export function mergeSettings(settings: Settings, changes: Partial<Settings>): Settings {
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
export function bootstrapSettings(record: unknown): Settings {
  const given = typeof record === "object" && record !== null ? (record as Partial<Settings>) : {};
  return mergeSettings(DEFAULT_SETTINGS, given);
}
