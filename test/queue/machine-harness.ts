/** Feeds a task machine with entries, one command each unless told otherwise, and recounts what it counts. */
import { encodeCommand } from "../../src/queue/command-codec.ts";
import { Database } from "bun:sqlite";
import { BLOCK_ROWS } from "../../src/queue/blocks.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { CommittedEntry, LoggedRequest } from "../../src/replica/ports.ts";
import type { Answer, Command, Signal } from "../../src/queue/commands.ts";
import { type MachineLimits, TaskMachine } from "../../src/queue/machine.ts";
import type {
  ClaimedTask,
  LeaseEnd,
  LeaseEndAnswer,
  LeaseRef,
  NewTask,
  RetryPolicy,
  Task,
} from "../../src/queue/types.ts";

export const NO_DELAY: RetryPolicy = {
  kind: "none",
  initial_ms: 0,
  factor: 2,
  max_ms: 0,
  jitter: false,
};
export const START = 1_700_000_000_000;

/** A UUIDv7 of the given time; `n` makes it unique. */
export function idAt(time: number, n: number): string {
  const hex = time.toString(16).padStart(12, "0");
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-${n.toString(16).padStart(12, "0")}`;
}

export function newTask(id: string, more: Partial<NewTask> = {}): NewTask {
  return {
    id,
    name: "work",
    queue: "default",
    priority: 5,
    payload: '{"a":1}',
    max_retries: 3,
    run_at: null,
    timeout_ms: 60_000,
    retry: NO_DELAY,
    body_hash: null,
    ...more,
  };
}

export const request = (seq: number, command: Command, member = "n1", boot = 1): LoggedRequest => ({
  member: asNodeId(member),
  boot,
  seq,
  command: encodeCommand(command),
});

export class Harness {
  readonly db: Database;
  machine: TaskMachine;
  now = START;
  term = 1;
  index = 0;
  seq = 0;
  requests = 0;
  readonly entries: CommittedEntry[] = [];
  signals: Signal[] = [];
  #ids = 0;

  constructor(limits: MachineLimits = {}, db: Database = new Database(":memory:")) {
    this.db = db;
    this.machine = TaskMachine.open(db, limits);
    this.machine.onSignals((signals) => this.signals.push(...signals));
  }

  /** A restart: what the machine knows is what the tables say. */
  reopen(): void {
    this.machine = TaskMachine.open(this.db);
    this.machine.onSignals((signals) => this.signals.push(...signals));
  }

  /** One entry with these requests. */
  entry(
    requests: readonly LoggedRequest[],
    acks: CommittedEntry["acks"] = [],
    seed = 7,
  ): readonly Answer[] {
    const entry: CommittedEntry = {
      index: asIndex(++this.index),
      term: asTerm(this.term),
      now: this.now,
      seed,
      requests,
      acks,
      bootstrap: null,
    };
    this.entries.push(entry);
    this.signals = [];
    return this.machine.apply([entry]).map((given) => given.answer as Answer);
  }

  do(...commands: readonly Command[]): Answer {
    const answers = this.entry(commands.map((command) => request(++this.seq, command)));
    const last = answers.at(-1);
    if (last === undefined) throw new Error("no answer");
    return last;
  }

  /** Like `do`, and its value; throws on a refusal. */
  value(...commands: readonly Command[]): Extract<Answer, { ok: true }>["value"] {
    const answer = this.do(...commands);
    if (!answer.ok) throw new Error(`refused: ${JSON.stringify(answer)}`);
    return answer.value;
  }

  submit(more: Partial<NewTask> = {}): string {
    const id = more.id ?? idAt(this.now, ++this.#ids);
    this.value({ type: "submit", tasks: [newTask(id, more)] });
    return id;
  }

  claim(max = 1, more: Partial<Extract<Command, { type: "claim" }>> = {}): readonly ClaimedTask[] {
    const value = this.value({
      type: "claim",
      worker_id: "w1",
      request_id: `r${++this.requests}`,
      principal: "p",
      queues: null,
      names: null,
      star: false,
      max,
      local: null,
      ...more,
    });
    if (value.type !== "claimed") throw new Error("not a claim's answer");
    return value.tasks;
  }

  /** Claims one task; throws when there is none. */
  claimOne(more: Partial<Extract<Command, { type: "claim" }>> = {}): LeaseRef {
    const task = this.claim(1, more)[0];
    if (task === undefined) throw new Error("nothing to claim");
    return refOf(task);
  }

  end(ref: LeaseRef, end: LeaseEnd, worker = "w1", principal = "p"): LeaseEndAnswer {
    const value = this.value({
      type: "end",
      worker_id: worker,
      principal,
      items: [{ ...ref, end }],
    });
    const answer = value.type === "ended" ? value.items[0] : undefined;
    if (answer === undefined) throw new Error("not an end's answer");
    return answer;
  }

  expire(ref: LeaseRef, seen: boolean, term = this.term): Answer {
    return this.do({ type: "expire", term, items: [{ ...ref, seen }] });
  }

  task(id: string): Task {
    const task = this.machine.task(id);
    if (task === null) throw new Error(`no task ${id}`);
    return task;
  }

  /** "Status/detail" of a task, or "none". */
  state(id: string): string {
    const task = this.machine.task(id);
    if (task === null) return "none";
    return task.detail === null ? task.status : `${task.status}/${task.detail}`;
  }
}

export const refOf = (task: ClaimedTask): LeaseRef => ({
  task_id: task.id,
  attempt: task.lease.attempt,
  fence: task.lease.fence,
});

export const failure = (
  more: Partial<Extract<LeaseEnd, { kind: "fail" }>> = {},
): Extract<LeaseEnd, { kind: "fail" }> => ({
  kind: "fail",
  error: { type: "Error", message: "boom", stack: null, retryable: true },
  retry_after_ms: null,
  crashed: false,
  ...more,
});

export const complete: LeaseEnd = { kind: "complete", result: '"done"' };

const VISIBLE =
  "NOT EXISTS (SELECT 1 FROM clears c WHERE c.status = t.status AND t.changed <= c.watermark)";

/** What the machine keeps in memory, counted anew from the tables (Q10). */
export function recount(db: Database): {
  counts: number[];
  ready: string;
  keys: number;
} {
  const counts = [0, 0, 0, 0, 0];
  for (const { status, n } of db
    .query<{ status: number; n: number }, []>(
      `SELECT status, count(*) AS n FROM tasks t WHERE ${VISIBLE} GROUP BY status`,
    )
    .all()) {
    counts[status] = n;
  }
  const ready = db
    .query<{ queue: string; name: string; n: number }, []>(
      `SELECT queue, name, count(*) AS n FROM tasks t WHERE status = 0 AND detail = 0 AND ${VISIBLE}
       GROUP BY queue, name`,
    )
    .all()
    .map(({ queue, name, n }) => `${queue}/${name}=${n}`);
  const keys = db.query<{ n: number }, []>("SELECT count(*) AS n FROM idempotency").get();
  return { counts, ready: ready.sort().join(" "), keys: keys?.n ?? 0 };
}

/** Blocks and places as the tables have them, and as they would be counted anew from the tasks; both must be equal. */
export function recountBlocks(db: Database): { kept: unknown[]; counted: unknown[] } {
  const status = ["pending", "running", "completed", "failed", "cancelled"]
    .map((name, code) => `sum(status = ${code}) AS ${name}`)
    .join(", ");
  const kept = db.query("SELECT * FROM blocks ORDER BY block").all();
  const counted = db
    .query(
      `SELECT seq / ${BLOCK_ROWS} AS block, ${status} FROM tasks GROUP BY seq / ${BLOCK_ROWS} ORDER BY 1`,
    )
    .all();
  return { kept, counted };
}

/** What a list would not find: a queue or name of a task that is not listed for its block; or a place without a block. */
export function misplaced(db: Database): unknown[] {
  const at = `SELECT 1 FROM places p WHERE p.block = t.seq / ${BLOCK_ROWS}`;
  return db
    .query(
      `SELECT id FROM tasks t WHERE NOT EXISTS (${at} AND p.kind = 0 AND p.value = t.queue)
         OR NOT EXISTS (${at} AND p.kind = 1 AND p.value = t.name)
       UNION ALL SELECT value FROM places WHERE block NOT IN (SELECT block FROM blocks)`,
    )
    .all();
}

/** The same as the machine has it. */
export function counted(machine: TaskMachine): { counts: number[]; ready: string } {
  const ready: string[] = [];
  for (const [queue, names] of machine.ready()) {
    for (const [name, n] of names) ready.push(`${queue}/${name}=${n}`);
  }
  return { counts: Object.values(machine.counts()), ready: ready.sort().join(" ") };
}
