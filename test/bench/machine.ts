/**
 * Micro benchmark of the task machine: what one task costs a member from submit over claim to its end.
 *
 *     bun test/bench/machine.ts [--tasks 100000] [--batch 100] [--single] [--waiting 0] [--finished 0] [--lag 3]
 *
 * A file in WAL with synchronous=NORMAL and rows written behind, flushed every 400 ms, as in production. One
 * entry submits `batch` tasks (one command each with --single), a later one claims as many, and `lag` entries
 * later they are completed. `waiting` tasks stand before them all the time, `finished` ones lie in the table.
 */
import { encodeCommand } from "../../src/queue/command-codec.ts";
import { dlopen, FFIType, ptr } from "bun:ffi";
import { Database } from "bun:sqlite";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { Answer, Command } from "../../src/queue/commands.ts";
import { TaskMachine, WRITE_BEHIND_ROWS } from "../../src/queue/machine.ts";
import { type ClaimedTask, DEFAULT_RETRY } from "../../src/queue/types.ts";
import { idAt, newTask, refOf } from "../queue/machine-harness.ts";

const { values } = parseArgs({
  options: {
    tasks: { type: "string", default: "100000" },
    batch: { type: "string", default: "100" },
    single: { type: "boolean", default: false },
    waiting: { type: "string", default: "0" },
    finished: { type: "string", default: "0" },
    lag: { type: "string", default: "3" },
  },
});
const batch = Number(values.batch);
const FLUSH_MS = 400;

const folder = mkdtempSync(join(tmpdir(), "flotilla-bench-"));
const db = new Database(join(folder, "state.db"), { create: true, strict: true });
db.run("PRAGMA journal_mode = WAL");
db.run("PRAGMA synchronous = NORMAL");
db.run("PRAGMA wal_autocheckpoint = 0");
const machine = TaskMachine.open(db, { writeBehind: WRITE_BEHIND_ROWS });
const member = asNodeId("n1");
let index = 0;
let seq = 0;
let now = 1_700_000_000_000;
let serial = 0;
let flushedAt = performance.now();
/** CPU time of this thread, ms: others at work on the machine do not count, nor do the compiler's and collector's threads. */
const CLOCK_THREAD_CPUTIME_ID = 3;
const { symbols: libc } = dlopen("libc.so.6", {
  clock_gettime: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
});
const timespec = new BigInt64Array(2);
const timespecAt = ptr(timespec);
function cpuMs(): number {
  libc.clock_gettime(CLOCK_THREAD_CPUTIME_ID, timespecAt);
  return Number(timespec[0]) * 1e3 + Number(timespec[1]) / 1e6;
}

const spent = { submit: 0, claim: 0, end: 0, flush: 0 };

function apply(part: keyof typeof spent, commands: readonly Command[]): readonly Answer[] {
  index++;
  now++;
  const below = seq + 1;
  const requests = commands.map((command) => ({
    member,
    boot: 1,
    seq: ++seq,
    command: encodeCommand(command),
  }));
  const from = cpuMs();
  const given = machine.apply([
    {
      index: asIndex(index),
      term: asTerm(1),
      now,
      seed: index,
      requests,
      acks: [{ member, boot: 1, below }],
      bootstrap: null,
    },
  ]);
  const to = cpuMs();
  spent[part] += to - from;
  if (performance.now() - flushedAt >= FLUSH_MS) {
    machine.flush();
    flushedAt = performance.now();
    spent.flush += cpuMs() - to;
  }
  return given.map(({ answer }) => answer as Answer);
}

const payload = JSON.stringify({ text: "x".repeat(180) });

function submit(): void {
  const tasks = Array.from({ length: batch }, () =>
    newTask(idAt(now, ++serial), { payload, retry: DEFAULT_RETRY }),
  );
  apply(
    "submit",
    values.single
      ? tasks.map((task) => ({ type: "submit", tasks: [task] }))
      : [{ type: "submit", tasks }],
  );
}

function claim(): readonly ClaimedTask[] {
  const claims = Array.from({ length: values.single ? batch : 1 }, (_, i): Command => ({
    type: "claim",
    worker_id: `w${i % 16}`,
    request_id: `${index}-${i}`,
    principal: "p",
    queues: null,
    names: ["work"],
    star: false,
    max: values.single ? 1 : batch,
    local: { member, boot: 1 },
  }));
  return apply("claim", claims).flatMap((answer) =>
    answer.ok && answer.value.type === "claimed" ? answer.value.tasks : [],
  );
}

function end(tasks: readonly ClaimedTask[]): void {
  const items = tasks.map((task) => ({
    worker: task.lease.worker,
    item: { ...refOf(task), end: { kind: "complete" as const, result: '{"ok":true}' } },
  }));
  const of = (worker_id: string, own: typeof items): Command => ({
    type: "end",
    worker_id,
    principal: "p",
    items: own.map(({ item }) => item),
  });
  apply("end", values.single ? items.map((one) => of(one.worker, [one])) : [of("w0", items)]);
}

for (let done = 0; done < Number(values.finished); done += batch) {
  submit();
  end(claim());
}
for (let done = 0; done < Number(values.waiting); done += batch) submit();
machine.flush();
db.run("PRAGMA wal_checkpoint(PASSIVE)");

for (const part of ["submit", "claim", "end", "flush"] as const) spent[part] = 0;
const before = machine.counts().Completed;
const cpu = process.cpuUsage();
const claimed: (readonly ClaimedTask[])[] = [];
for (let done = 0; done < Number(values.tasks); done += batch) {
  submit();
  claimed.push(claim());
  if (claimed.length > Number(values.lag)) end(claimed.shift() ?? []);
}
for (const tasks of claimed) end(tasks);
const from = cpuMs();
machine.flush();
spent.flush += cpuMs() - from;
const used = process.cpuUsage(cpu);
const count = machine.counts().Completed - before;
const us = (ms: number): string => ((ms * 1_000) / count).toFixed(2);
const total = spent.submit + spent.claim + spent.end + spent.flush;
console.log(
  `${count} tasks, ${batch} a batch${values.single ? ", a command each" : ""}, ${values.waiting} waiting, ${values.finished} finished: ` +
    `${us(total)} µs of CPU a life on its thread (submit ${us(spent.submit)}, claim ${us(spent.claim)}, end ${us(spent.end)}, flush ${us(spent.flush)}); ` +
    `the whole process ${((used.user + used.system) / count).toFixed(2)} µs`,
);
db.close();
rmSync(folder, { recursive: true });
