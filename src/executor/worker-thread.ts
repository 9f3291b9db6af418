/**
 * What runs inside each Worker of an executor pool: loads the handlers once, then runs one task at a
 * time. Everything that leaves it is JSON text; errors are turned into text here, because an `Error`
 * loses its properties, and an uncaught one its message, on the way to the main thread.
 *
 * A member may start a Worker for each slot at the same moment, when the first tasks come: what not every
 * handler needs (node:util, node:net, node:fs) is loaded when it is first used.
 */
import { setPriority } from "node:os";
import { AttemptJournal } from "./attempt-journal.ts";
import { echo } from "./builtin/echo.ts";
import { loadHandlers } from "./load-handlers.ts";
import type { Handler, HandlerContext } from "./handler.ts";
import type { ConsoleLevel, FromThread, RunOutcome, ToThread } from "./protocol.ts";
import { cutText, outcomeOfReturn, outcomeOfText, outcomeOfThrow, taskError } from "./serialise.ts";

declare const self: Worker;

/** Lines of handlers' console a second; the rest is counted and dropped, so that a loop cannot flood the node. */
const CONSOLE_LINES_PER_SECOND = 200;
const CONSOLE_LINE_MAX_BYTES = 8 * 1024;

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
let running: { readonly fence: number; readonly controller: AbortController } | null = null;

function send(message: FromThread): void {
  self.postMessage(JSON.stringify(message));
}

/** Why a handler's signal fired. */
class TaskAborted extends Error {
  override name = "AbortError";
}

async function run(task: Extract<ToThread, { type: "run" }>): Promise<void> {
  const controller = new AbortController();
  running = { fence: task.fence, controller };
  const journal = new AttemptJournal(
    () => performance.now(),
    (part) => send({ type: "report", fence: task.fence, ...part }),
  );
  const context: HandlerContext = {
    signal: controller.signal,
    attempt: task.attempt,
    fence: task.fence,
    taskId: task.taskId,
    name: task.name,
    progress: (percent, message) => journal.progress(percent, message),
    log: (line) => journal.log(line),
  };
  const since = performance.now();
  const outcome = await attempt(task, context);
  const ran_ms = performance.now() - since;
  running = null;
  send({ type: "end", fence: task.fence, outcome, rest: journal.close(), ran_ms });
}

async function attempt(
  task: Extract<ToThread, { type: "run" }>,
  context: HandlerContext,
): Promise<RunOutcome> {
  try {
    const handler = handlers.get(task.name) ?? handlers.get("*");
    if (handler === undefined) throw new Error(`no handler is named ${task.name}`);
    // A number that JavaScript cannot hold, or white space, would not survive being parsed and printed again.
    if (handler === echo) return outcomeOfText(task.payload ?? "null", task.resultMaxBytes);
    const payload: unknown = task.payload === null ? null : JSON.parse(task.payload);
    return outcomeOfReturn(await handler(payload, context), task.resultMaxBytes);
  } catch (thrown) {
    return outcomeOfThrow(thrown);
  }
}

async function setUp(setup: Extract<ToThread, { type: "setup" }>): Promise<void> {
  try {
    handlers = await loadHandlers(setup);
    send({ type: "ready", names: [...handlers.keys()] });
  } catch (error) {
    send({ type: "load-failed", error: taskError(error) });
  }
}

self.addEventListener("message", (event: MessageEvent<string>) => {
  const message = JSON.parse(event.data) as ToThread;
  switch (message.type) {
    case "setup":
      void setUp(message);
      return;
    case "run":
      void run(message);
      return;
    case "abort":
      if (running?.fence === message.fence)
        running.controller.abort(new TaskAborted(message.reason));
      return;
  }
});

// Listening keeps Bun from reporting these as a formatted source listing; the Worker must still die,
// because nobody knows what state the handlers' module is in.
function die(thrown: unknown): void {
  send({ type: "dying", error: taskError(thrown) });
  process.exit(1);
}
process.on("uncaughtException", die);
process.on("unhandledRejection", die);

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
