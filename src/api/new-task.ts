/**
 * From a submit as the client sent it to a task with every default resolved: the log must hold decisions,
 * not defaults that a later version may change.
 */
import type { Clock, Random } from "../replica/ports.ts";
import {
  LIMITS,
  MAX_RETRIES_DEFAULT,
  PRIORITY_DEFAULT,
  QUEUE_DEFAULT,
  type NewTask,
  type RetryPolicy,
  type Settings,
} from "../queue/types.ts";
import { badFields, Problem, type FieldError } from "./problem.ts";
import { pointerTo, type RawJson } from "./raw-json.ts";
import type { Submit } from "./schema.ts";
import { parseTime } from "./time.ts";

/** A client's clock may be ahead of ours by so much. */
const CLIENT_ID_AHEAD_MAX_MS = 5_000;

export interface Minting {
  readonly settings: Settings;
  readonly clock: Clock;
  readonly random: Random;
}

/** The tasks of one submit, in order, after {@link checkTasks}. */
export function newTasks(bodies: readonly Submit[], minting: Minting): NewTask[] {
  return bodies.map((body) => newTask(body, minting));
}

/**
 * What the schema cannot know. `at` is where each task stands in the body: "" for a single one.
 * @throws Problem 400 (ids) or 413 (payloads), naming every one
 */
export function checkTasks(
  bodies: readonly Submit[],
  minting: Minting,
  at: (index: number) => string,
): void {
  const errors: FieldError[] = [];
  const oversized: FieldError[] = [];
  const seen = new Set<string>();
  const now = minting.clock.wall();
  for (const [index, body] of bodies.entries()) {
    if (body.id !== undefined) {
      const fault =
        idFault(body.id, now) ?? (seen.has(body.id) ? "is in this request twice" : null);
      if (fault !== null) errors.push({ pointer: pointerTo(at(index), "id"), detail: fault });
      seen.add(body.id);
    }
    const retryFault = retryLimitsFault(body.retry);
    if (retryFault !== null)
      errors.push({ pointer: `${pointerTo(at(index), "retry")}/max_ms`, detail: retryFault });
    const fault = sizeFault(body.payload, minting.settings);
    if (fault !== null) oversized.push({ pointer: pointerTo(at(index), "payload"), detail: fault });
  }
  if (errors.length > 0) throw badFields([...errors, ...oversized]);
  if (oversized.length > 0) throw tooLarge("payload-too-large", oversized);
}

/** 413 over `max_payload`, for payloads and results alike. */
export function tooLarge(
  code: "payload-too-large" | "result-too-large",
  errors: FieldError[],
): Problem {
  const first = errors[0];
  return new Problem(413, code, first === undefined ? "" : `${first.pointer}: ${first.detail}`, {
    errors,
  });
}

/** What is wrong with the size of a payload or result, or null. */
export function sizeFault(raw: RawJson | undefined, settings: Settings): string | null {
  if (raw === undefined) return null;
  // A character has three bytes at most.
  if (raw.text.length * 3 <= settings.max_payload) return null;
  const bytes = Buffer.byteLength(raw.text);
  return bytes > settings.max_payload
    ? `must be at most ${settings.max_payload} bytes, not ${bytes}`
    : null;
}

/** The shape was checked by the schema; this is about the time inside (RFC 9562, 5.7). */
function idFault(id: string, now: number): string | null {
  const mintedAt = timeOf(id);
  if (mintedAt < now - LIMITS.clientIdAgeMs) {
    return "is older than an hour: such ids are forgotten, so a repeat could run twice";
  }
  return mintedAt > now + CLIENT_ID_AHEAD_MAX_MS
    ? "is of the future: the clock that made it is ahead"
    : null;
}

/** The newest one looked at: ids of one request were mostly made within a few milliseconds. */
let lastStamp = "";
let lastStampAt = 0;

/** Epoch ms of a UUIDv7. */
function timeOf(id: string): number {
  const stamp = id.slice(0, 13);
  if (stamp !== lastStamp) {
    lastStamp = stamp;
    lastStampAt = Number.parseInt(stamp.slice(0, 8) + stamp.slice(9), 16);
  }
  return lastStampAt;
}

function newTask(body: Submit, { settings, clock, random }: Minting): NewTask {
  const runAt = body.run_at ?? null;
  return {
    id: body.id ?? random.uuid(clock.wall()),
    name: body.name,
    queue: body.queue ?? QUEUE_DEFAULT,
    priority: body.priority ?? PRIORITY_DEFAULT,
    payload: body.payload?.text ?? null,
    max_retries: body.max_retries ?? MAX_RETRIES_DEFAULT,
    run_at: runAt === null ? null : parseTime(runAt),
    timeout_ms: body.timeout_ms === undefined ? settings.timeout_ms : body.timeout_ms,
    retry: completeRetry(body.retry, settings.retry),
    body_hash: body.id === undefined ? null : bodyHash(body),
  };
}

/** Only where both are said: a default that is above or below what was given is nobody's mistake. */
function retryLimitsFault(given: Submit["retry"]): string | null {
  const { initial_ms: initial, max_ms: max } = given ?? {};
  if (initial === undefined || max === undefined || initial <= max) return null;
  return `must be at least initial_ms (${initial}), not ${max}`;
}

/** A partial policy over the one in force. */
function completeRetry(given: Submit["retry"], fallback: RetryPolicy): RetryPolicy {
  if (given === undefined) return fallback;
  return {
    kind: given.kind ?? fallback.kind,
    initial_ms: given.initial_ms ?? fallback.initial_ms,
    factor: given.factor ?? fallback.factor,
    max_ms: given.max_ms ?? fallback.max_ms,
    jitter: given.jitter ?? fallback.jitter,
  };
}

/**
 * Over what the client said, in a fixed order, whatever order and spacing it was sent in (the payload's own
 * apart). Not over the resolved task: a default that changes between two tries must not make them differ.
 */
function bodyHash(body: Submit): string {
  const { retry } = body;
  const said = [
    body.name,
    body.payload?.text ?? null,
    body.queue ?? null,
    body.priority ?? null,
    body.max_retries ?? null,
    body.run_at === undefined || body.run_at === null ? null : parseTime(body.run_at),
    // null means "none" here, so "not given" needs a word of its own
    body.timeout_ms === undefined ? "default" : body.timeout_ms,
    retry === undefined
      ? null
      : [retry.kind, retry.initial_ms, retry.factor, retry.max_ms, retry.jitter],
  ];
  return Bun.SHA256.hash(JSON.stringify(said), "hex");
}
