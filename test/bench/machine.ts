/**
 * Micro benchmark of the task machine: what one task costs from submit over claim to its end.
 * `bun test/bench/machine.ts [tasks] [commands per entry] [tasks kept]`: a file in WAL with synchronous=NORMAL, as in production.
 */
import { Database } from "bun:sqlite";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { Command } from "../../src/queue/commands.ts";
import type { Answer } from "../../src/queue/commands.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { DEFAULT_RETRY } from "../../src/queue/types.ts";
import { idAt, newTask, refOf } from "../queue/machine-harness.ts";

const tasks = Number(process.argv[2] ?? 100_000);
const batch = Number(process.argv[3] ?? 64);
const folder = mkdtempSync(join(tmpdir(), "flotilla-bench-"));
const db =
  process.env.BENCH_MEMORY === "1"
    ? new Database(":memory:")
    : new Database(join(folder, "state.db"), { create: true });
db.run("PRAGMA journal_mode = WAL");
db.run("PRAGMA synchronous = NORMAL");
db.run("PRAGMA wal_autocheckpoint = 0");
const machine = TaskMachine.open(db);
const member = asNodeId("n1");
let index = 0;
let seq = 0;
let now = 1_700_000_000_000;

function apply(commands: readonly Command[]): readonly Answer[] {
  index++;
  now++;
  const below = seq + 1;
  const requests = commands.map((command) => ({ member, boot: 1, seq: ++seq, command }));
  return machine
    .apply([
      {
        index: asIndex(index),
        term: asTerm(1),
        now,
        seed: index,
        requests,
        acks: [{ member, boot: 1, below }],
        bootstrap: null,
      },
    ])
    .map((given) => given.answer as Answer);
}

const spent = { submit: 0, claim: 0, end: 0 };
function timed<T>(part: keyof typeof spent, run: () => T): T {
  const from = performance.now();
  const value = run();
  spent[part] += performance.now() - from;
  return value;
}

const payload = JSON.stringify({ text: "x".repeat(180) });
for (let done = 0; done < tasks; done += batch) {
  const submits: Command[] = [];
  for (let i = 0; i < batch; i++) {
    const task = newTask(idAt(now, done + i), { payload, retry: DEFAULT_RETRY });
    submits.push({ type: "submit", tasks: [task] });
  }
  timed("submit", () => apply(submits));
  const claims = submits.map((_, i): Command => ({
    type: "claim",
    worker_id: `w${i % 16}`,
    request_id: `${done + i}`,
    principal: "p",
    queues: null,
    names: ["work"],
    star: false,
    max: 1,
    local: { member, boot: 1 },
  }));
  const answers = timed("claim", () => apply(claims));
  const ends = answers.map((answer, i): Command => {
    if (!answer.ok || answer.value.type !== "claimed") throw new Error("no claim");
    const items = answer.value.tasks.map((task) => ({
      ...refOf(task),
      end: { kind: "complete" as const, result: '{"ok":true}' },
    }));
    return { type: "end", worker_id: `w${i % 16}`, principal: "p", items };
  });
  timed("end", () => apply(ends));
}
const count = machine.counts().Completed;
const us = (ms: number): string => ((ms * 1_000) / count).toFixed(2);
const total = spent.submit + spent.claim + spent.end;
console.log(
  `${count} tasks, ${batch} commands per entry: ${us(total)} µs per task life (submit ${us(spent.submit)}, claim ${us(spent.claim)}, end ${us(spent.end)})`,
);
db.close();
rmSync(folder, { recursive: true });
