/**
 * What runs inside each Worker of an executor pool: loads the handlers once, then runs one task at a
 * time. Everything that leaves it is JSON text; errors are turned into text here, because an `Error`
 * loses its properties, and an uncaught one its message, on the way to the main thread.
 *
 * Ends of short runs are gathered into one message: a message costs more than such a run. They leave when nothing
 * is left to do, when a handler waits for something, when the first is GATHER_MS old, and before a handler is entered
 * that is not known to be short: what never yields must not hold back the ends of others.
 *
 * A member may start a Worker for each slot at the same moment, when the first tasks come: what not every
 * handler needs (node:util, node:net, node:fs) is loaded when it is first used.
 */
import { setPriority } from "node:os";
import type { AnswerPort } from "../system/answers.ts";
import { Attempt } from "./attempt.ts";
import { echo } from "./builtin/echo.ts";
import { EntryCounter } from "./entry-counter.ts";
import { loadHandlers } from "./load-handlers.ts";
import type { Handler } from "./handler.ts";
import type {
  ConsoleLevel,
  FromThread,
  PostedTask,
  RunEnd,
  RunOutcome,
  ThreadSetup,
  ThreadStart,
  ToThread,
} from "./protocol.ts";
import { cutText, outcomeOfReturn, outcomeOfText, outcomeOfThrow, taskError } from "./serialise.ts";

declare const self: Worker;

/** Lines of handlers' console a second; the rest is counted and dropped, so that a loop cannot flood the node. */
const CONSOLE_LINES_PER_SECOND = 200;
const CONSOLE_LINE_MAX_BYTES = 8 * 1024;
/** How old the end of a run may be when the next handler is entered. */
const GATHER_MS = 1;
/** So many runs in a row, none of which took SHORT_MS, make a handler known to be short. */
const SHORT_RUNS = 50;
const SHORT_MS = 1;

/**
 * Niceness of an executor's thread. Consensus shares the cores with handlers that compute without end; with
 * equal shares a member of many slots misses its heartbeats. On Linux the call is about this thread alone,
 * elsewhere about the whole process, where it would do harm.
 */
const THREAD_NICENESS = 19;
if (process.platform === "linux") {
  try {
    setPriority(THREAD_NICENESS);
  } catch {
    // A sandbox that forbids it: the handlers run all the same.
  }
}

/** Keys are names of tasks: user text, hence a Map. */
let handlers: ReadonlyMap<string, Handler> = new Map();
let answers: AnswerPort | null = null;
let entries = new EntryCounter();
let running: Attempt | null = null;
let waiting: Waiting[] = [];
let isWorking = false;
let ends: RunEnd[] = [];
/** When the first of `ends` was gathered. */
let endsSince = 0;
let flushAsked = false;
/** Short runs since the last one that was not. */
const shortRuns = new Map<Handler, number>();

interface Waiting {
  readonly task: PostedTask;
  readonly number: number;
  readonly resultMaxBytes: number;
}

function send(message: FromThread): void {
  answers?.postMessage(JSON.stringify(message));
}

function flush(): void {
  flushAsked = false;
  if (ends.length === 0) return;
  const message: FromThread = { type: "ends", ends };
  ends = [];
  send(message);
}

/** A handler waits: if it is not only for a microtask, what has ended before it need not. */
function flushSoon(): void {
  if (flushAsked || ends.length === 0) return;
  flushAsked = true;
  setImmediate(flush);
}

/** Runs what was posted, one after another, until nothing is left. */
async function work(): Promise<void> {
  if (isWorking) return;
  isWorking = true;
  let now = performance.now();
  for (;;) {
    const batch = waiting;
    waiting = [];
    if (batch.length === 0) break;
    for (const { task, number, resultMaxBytes } of batch) {
      const handler = handlers.get(task.name) ?? handlers.get("*") ?? null;
      const short = handler === null ? SHORT_RUNS : (shortRuns.get(handler) ?? 0);
      if (short < SHORT_RUNS || now - endsSince >= GATHER_MS) flush();
      if (!entries.enter(number)) continue;
      const attempt = new Attempt(task, (part) => {
        send({ type: "report", fence: task.fence, ...part });
      });
      running = attempt;
      const since = now;
      let outcome: RunOutcome;
      try {
        const begun = enter(handler, attempt);
        if (begun.kind === "text") {
          outcome = outcomeOfText(begun.text, resultMaxBytes);
        } else {
          let { value } = begun;
          // Most short handlers are done at once: a promise for each would cost as much as they do.
          if (isThenable(value)) {
            flushSoon();
            value = await value;
          }
          outcome = outcomeOfReturn(value, resultMaxBytes);
        }
      } catch (thrown) {
        outcome = outcomeOfThrow(thrown);
      }
      running = null;
      now = performance.now();
      if (ends.length === 0) endsSince = now;
      ends.push({ fence: task.fence, outcome, rest: attempt.close(), ran_ms: now - since });
      if (handler !== null) shortRuns.set(handler, now - since < SHORT_MS ? short + 1 : 0);
    }
  }
  isWorking = false;
  flush();
}

type Begun =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "value"; readonly value: unknown };

/** @throws whatever the handler throws */
function enter(handler: Handler | null, { task, context }: Attempt): Begun {
  if (handler === null) throw new Error(`no handler is named ${task.name}`);
  // A number that JavaScript cannot hold, or white space, would not survive being parsed and printed again.
  if (handler === echo) return { kind: "text", text: task.payload ?? "null" };
  const payload: unknown = task.payload === null ? null : JSON.parse(task.payload);
  return { kind: "value", value: handler(payload, context) };
}

function isThenable(value: unknown): boolean {
  if ((typeof value !== "object" || value === null) && typeof value !== "function") return false;
  return "then" in value && typeof value.then === "function";
}

async function setUp(setup: ThreadSetup): Promise<void> {
  try {
    handlers = await loadHandlers(setup);
    send({ type: "ready", names: [...handlers.keys()] });
  } catch (error) {
    send({ type: "load-failed", error: taskError(error) });
  }
}

self.addEventListener("message", (event: MessageEvent<ThreadStart | string>) => {
  if (typeof event.data !== "string") {
    ({ answers } = event.data);
    entries = new EntryCounter(event.data.entries);
    void setUp(event.data.setup);
    return;
  }
  const message = JSON.parse(event.data) as ToThread;
  switch (message.type) {
    case "run": {
      const { tasks, first, resultMaxBytes } = message;
      for (const [i, task] of tasks.entries())
        waiting.push({ task, number: (first + i) | 0, resultMaxBytes });
      void work();
      return;
    }
    case "abort":
      if (running?.task.fence === message.fence) running.abort(message.reason);
      return;
  }
});

// Listening keeps Bun from reporting these as a formatted source listing; the Worker must still die,
// because nobody knows what state the handlers' module is in.
function die(thrown: unknown): void {
  flush();
  send({ type: "dying", error: taskError(thrown) });
  process.exit(1);
}
process.on("uncaughtException", die);
process.on("unhandledRejection", die);
// A handler that ends its thread takes nobody else's end with it.
process.on("exit", flush);

let consoleWindowStart = 0;
let consoleLines = 0;
let consoleDropped = 0;

function toLog(level: ConsoleLevel, parts: readonly unknown[]): void {
  const now = performance.now();
  if (now - consoleWindowStart >= 1_000) {
    const dropped = consoleDropped;
    consoleWindowStart = now;
    consoleLines = 0;
    consoleDropped = 0;
    if (dropped > 0) toLog("warn", [`${dropped} console lines of handlers were dropped`]);
  }
  if (consoleLines >= CONSOLE_LINES_PER_SECOND) {
    consoleDropped += 1;
    return;
  }
  consoleLines += 1;
  const { format } = process.getBuiltinModule("node:util");
  send({ type: "console", level, text: cutText(format(...parts), CONSOLE_LINE_MAX_BYTES) });
}

console.debug = (...parts: unknown[]) => toLog("debug", parts);
console.log = (...parts: unknown[]) => toLog("info", parts);
console.info = (...parts: unknown[]) => toLog("info", parts);
console.warn = (...parts: unknown[]) => toLog("warn", parts);
console.error = (...parts: unknown[]) => toLog("error", parts);
