/**
 * Commands as the bytes that the log keeps. The three of a task's life (submit, claim, end) have layouts of
 * their own; the others, which are rare, are JSON. Payloads and results are texts: not escaped, not looked at.
 *
 *     byte kind, then by kind (values as in replica/bytes.ts):
 *
 *     0  the command as JSON, to the end
 *     1  submit: count templates, each: text name, text queue, number priority, number max_retries,
 *          byte (1: with timeout_ms), [number timeout_ms], text retry policy (JSON), options;
 *        count tasks, each: count template, text id, byte what follows (1 payload, 2 run_at, 4 body hash,
 *          8 options), [text payload], [number run_at], [text body hash], [options]; options
 *     2  claim: text worker, text request, text principal, list queues, list names,
 *          byte (1 star, 2 local), count max, [text member, count boot]; options
 *     3  end: text worker, text principal, count items, each: text task, count attempt, count fence, byte how:
 *          0 complete without a result · 1 complete, text result · 2 fail, text error (JSON), byte (1 crashed,
 *          2 retry after), [number ms] · 3 snooze, number ms · 4 release; options
 *
 *     list     count(0) for null, else count(length + 1) and as many texts
 *     options  of a command: 1 idempotency scope: text principal, text route, text key, text hash
 *
 * This is a format for ever: a kind, a bit, an option's tag is never reused. New fields of old kinds come as
 * options; a machine writes what is new only once every member can read it (`machine_version`). Golden bytes
 * are in test/queue/command-codec.test.ts.
 */
import { asNodeId } from "../raft/types.ts";
import { ByteReader, ByteWriter } from "../replica/bytes.ts";
import { FatalError } from "../replica/ports.ts";
import type { Command } from "./commands.ts";
import { retryPolicy } from "./rows.ts";
import type { IdempotencyScope, LeaseEnd, LeaseRef, NewTask, TaskError } from "./types.ts";

const KIND = { json: 0, submit: 1, claim: 2, end: 3 } as const;

const TASK = { payload: 1, runAt: 2, bodyHash: 4, options: 8 } as const;
const TASK_KNOWN = 15;
const CLAIM = { star: 1, local: 2 } as const;
const CLAIM_KNOWN = 3;
const END = { completeEmpty: 0, complete: 1, fail: 2, snooze: 3, release: 4 } as const;
const FAIL = { crashed: 1, retryAfter: 2 } as const;
const FAIL_KNOWN = 3;
const IDEMPOTENCY = 1;

type Submit = Extract<Command, { readonly type: "submit" }>;
type ClaimCommand = Extract<Command, { readonly type: "claim" }>;
type End = Extract<Command, { readonly type: "end" }>;

const writer = new ByteWriter();
const scopeWriter = new ByteWriter();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** @throws RangeError when an attempt, fence or boot is no whole number */
export function encodeCommand(command: Command): Uint8Array<ArrayBuffer> {
  writer.begin();
  if (command.type === "submit") {
    writer.byte(KIND.submit);
    writeSubmit(command);
  } else if (command.type === "claim") {
    writer.byte(KIND.claim);
    writeClaim(command);
  } else if (command.type === "end") {
    writer.byte(KIND.end);
    writeEnd(command);
  } else {
    writer.byte(KIND.json);
    writer.bytes(Buffer.from(JSON.stringify(command), "utf8"));
    return writer.take();
  }
  if (command.idem !== undefined) writer.option(IDEMPOTENCY, scopeBytes(command.idem));
  writer.endOptions();
  return writer.take();
}

/** @throws FatalError for what this build does not know: it must not be skipped */
export function decodeCommand(bytes: Uint8Array): Command {
  const reader = new ByteReader(bytes);
  const kind = reader.byte();
  switch (kind) {
    case KIND.json:
      // Its type is checked where it is carried out.
      return JSON.parse(decoder.decode(reader.view(reader.left))) as Command;
    case KIND.submit:
      return withOptions(reader, readSubmit(reader));
    case KIND.claim:
      return withOptions(reader, readClaim(reader));
    case KIND.end:
      return withOptions(reader, readEnd(reader));
    default:
      throw new FatalError(
        `a log entry holds a command of kind ${kind}, which this build does not know: start a newer build`,
      );
  }
}

function withOptions(reader: ByteReader, command: Submit | ClaimCommand | End): Command {
  let idem: IdempotencyScope | undefined;
  reader.options((tag, value) => {
    if (tag !== IDEMPOTENCY) return false;
    idem = {
      principal: value.text(),
      route: value.text(),
      key: value.text(),
      hash: value.text(),
    };
    return true;
  });
  return idem === undefined ? command : { ...command, idem };
}

function scopeBytes({ principal, route, key, hash }: IdempotencyScope): Uint8Array {
  scopeWriter.begin();
  scopeWriter.text(principal);
  scopeWriter.text(route);
  scopeWriter.text(key);
  scopeWriter.text(hash);
  return scopeWriter.take();
}

/** A byte of bits of which each says that something follows: one that is not known cannot be passed over. */
function known(bits: number, all: number, what: string): number {
  if ((bits & ~all) === 0) return bits;
  throw new FatalError(
    `a log entry holds ${what} with something that this build does not know: start a newer build`,
  );
}

// ------------------------------------------------------------------ submit

/** What tasks of one submit mostly share, and a queue's producers always. */
type Template = Pick<
  NewTask,
  "name" | "queue" | "priority" | "max_retries" | "timeout_ms" | "retry"
>;

function writeSubmit({ tasks }: Submit): void {
  const templates: Template[] = [];
  const uses = tasks.map((task) => templateOf(task, templates));
  writer.count(templates.length);
  for (const { name, queue, priority, max_retries, timeout_ms, retry } of templates) {
    writer.text(name);
    writer.text(queue);
    writer.number(priority);
    writer.number(max_retries);
    writer.byte(timeout_ms === null ? 0 : 1);
    if (timeout_ms !== null) writer.number(timeout_ms);
    writer.text(JSON.stringify(retry));
    writer.endOptions();
  }
  writer.count(tasks.length);
  for (const [i, { id, payload, run_at, body_hash }] of tasks.entries()) {
    writer.count(uses[i] ?? 0);
    writer.text(id);
    writer.byte(
      (payload === null ? 0 : TASK.payload) |
        (run_at === null ? 0 : TASK.runAt) |
        (body_hash === null ? 0 : TASK.bodyHash),
    );
    if (payload !== null) writer.text(payload);
    if (run_at !== null) writer.number(run_at);
    if (body_hash !== null) writer.text(body_hash);
  }
}

/** Templates looked through for one that fits; beyond it the task gets its own. */
const TEMPLATES_COMPARED = 16;

function templateOf(task: NewTask, templates: Template[]): number {
  const from = templates.length - 1;
  for (let i = from; i >= 0 && i > from - TEMPLATES_COMPARED; i--) {
    const known = templates[i];
    if (known !== undefined && isAlike(known, task)) return i;
  }
  return templates.push(task) - 1;
}

function isAlike(a: Template, b: Template): boolean {
  if (a.name !== b.name || a.queue !== b.queue || a.priority !== b.priority) return false;
  if (a.max_retries !== b.max_retries || a.timeout_ms !== b.timeout_ms) return false;
  const one = a.retry;
  const two = b.retry;
  return (
    one === two ||
    (one.kind === two.kind &&
      one.initial_ms === two.initial_ms &&
      one.factor === two.factor &&
      one.max_ms === two.max_ms &&
      one.jitter === two.jitter)
  );
}

function readSubmit(reader: ByteReader): Submit {
  const templates: Template[] = [];
  for (let left = reader.count(); left > 0; left--) {
    const name = reader.text();
    const queue = reader.text();
    const priority = reader.number();
    const max_retries = reader.number();
    const timeout_ms = known(reader.byte(), 1, "a task") === 0 ? null : reader.number();
    const retry = retryPolicy(reader.text());
    reader.options(() => false);
    templates.push({ name, queue, priority, max_retries, timeout_ms, retry });
  }
  const tasks: NewTask[] = [];
  for (let left = reader.count(); left > 0; left--) {
    const template = templates[reader.count()];
    if (template === undefined)
      throw new FatalError("a log entry names a template it does not hold");
    const id = reader.text();
    const bits = known(reader.byte(), TASK_KNOWN, "a task");
    const payload = (bits & TASK.payload) === 0 ? null : reader.text();
    const run_at = (bits & TASK.runAt) === 0 ? null : reader.number();
    const body_hash = (bits & TASK.bodyHash) === 0 ? null : reader.text();
    if ((bits & TASK.options) !== 0) reader.options(() => false);
    const { name, queue, priority, max_retries, timeout_ms, retry } = template;
    tasks.push({
      id,
      name,
      queue,
      priority,
      payload,
      max_retries,
      run_at,
      timeout_ms,
      retry,
      body_hash,
    });
  }
  return { type: "submit", tasks };
}

// ------------------------------------------------------------------ claim

function writeClaim(command: ClaimCommand): void {
  const { worker_id, request_id, principal, queues, names, star, max, local } = command;
  writer.text(worker_id);
  writer.text(request_id);
  writer.text(principal);
  writeList(queues);
  writeList(names);
  writer.byte((star ? CLAIM.star : 0) | (local === null ? 0 : CLAIM.local));
  writer.count(max);
  if (local !== null) {
    writer.text(local.member);
    writer.count(local.boot);
  }
}

function readClaim(reader: ByteReader): ClaimCommand {
  const worker_id = reader.text();
  const request_id = reader.text();
  const principal = reader.text();
  const queues = readList(reader);
  const names = readList(reader);
  const bits = known(reader.byte(), CLAIM_KNOWN, "a claim");
  const max = reader.count();
  const local =
    (bits & CLAIM.local) === 0 ? null : { member: asNodeId(reader.text()), boot: reader.count() };
  const star = (bits & CLAIM.star) !== 0;
  return { type: "claim", worker_id, request_id, principal, queues, names, star, max, local };
}

function writeList(list: readonly string[] | null): void {
  writer.count(list === null ? 0 : list.length + 1);
  if (list !== null) for (const text of list) writer.text(text);
}

function readList(reader: ByteReader): string[] | null {
  const head = reader.count();
  if (head === 0) return null;
  const list: string[] = [];
  for (let left = head - 1; left > 0; left--) list.push(reader.text());
  return list;
}

// ------------------------------------------------------------------ end

function writeEnd({ worker_id, principal, items }: End): void {
  writer.text(worker_id);
  writer.text(principal);
  writer.count(items.length);
  for (const { task_id, attempt, fence, end } of items) {
    writer.text(task_id);
    writer.count(attempt);
    writer.count(fence);
    writeHow(end);
  }
}

function writeHow(end: LeaseEnd): void {
  switch (end.kind) {
    case "complete":
      writer.byte(end.result === null ? END.completeEmpty : END.complete);
      if (end.result !== null) writer.text(end.result);
      return;
    case "fail":
      writer.byte(END.fail);
      writer.text(JSON.stringify(end.error));
      writer.byte(
        (end.crashed ? FAIL.crashed : 0) | (end.retry_after_ms === null ? 0 : FAIL.retryAfter),
      );
      if (end.retry_after_ms !== null) writer.number(end.retry_after_ms);
      return;
    case "snooze":
      writer.byte(END.snooze);
      writer.number(end.delay_ms);
      return;
    case "release":
      writer.byte(END.release);
  }
}

function readEnd(reader: ByteReader): End {
  const worker_id = reader.text();
  const principal = reader.text();
  const items: (LeaseRef & { readonly end: LeaseEnd })[] = [];
  for (let left = reader.count(); left > 0; left--) {
    const task_id = reader.text();
    const attempt = reader.count();
    const fence = reader.count();
    items.push({ task_id, attempt, fence, end: readHow(reader) });
  }
  return { type: "end", worker_id, principal, items };
}

function readHow(reader: ByteReader): LeaseEnd {
  const how = reader.byte();
  switch (how) {
    case END.completeEmpty:
      return { kind: "complete", result: null };
    case END.complete:
      return { kind: "complete", result: reader.text() };
    case END.fail: {
      const error = JSON.parse(reader.text()) as TaskError;
      const bits = known(reader.byte(), FAIL_KNOWN, "a failure");
      return {
        kind: "fail",
        error,
        retry_after_ms: (bits & FAIL.retryAfter) === 0 ? null : reader.number(),
        crashed: (bits & FAIL.crashed) !== 0,
      };
    }
    case END.snooze:
      return { kind: "snooze", delay_ms: reader.number() };
    case END.release:
      return { kind: "release" };
    default:
      throw new FatalError(
        `a log entry ends a lease in a way (${how}) that this build does not know: start a newer build`,
      );
  }
}
