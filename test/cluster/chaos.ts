/**
 * `bun run test/cluster/chaos.ts [--seconds 60] [--seed N]`: three real members under a mixed load while
 * processes are killed and stood still at random; then everything is checked from outside, through the
 * REST API alone. Exits 1 when a promise of the API was broken, and says which.
 *
 * The seed decides what is asked for, not how the processes interleave: a failure is not replayed exactly.
 */
import { parseArgs } from "node:util";
import { checkHistory } from "./chaos-check.ts";
import { type History, newHistory } from "./chaos-history.ts";
import { eventually, type Member, RealCluster, type TaskJson } from "./harness.ts";

const LEASE_MS = 2_000;
/** One client call, retries elsewhere not included. */
const CALL_MS = 8_000;
/** A submit whose outcome is unknown is repeated this often before it is left open. */
const SUBMIT_TRIES = 30;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
  },
});
const seconds = Number(values.seconds);
let state = Number(values.seed);

/** A small linear congruential generator: good enough to draw what to break next. */
function draw(below: number): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}
const chance = (percent: number): boolean => draw(100) < percent;

function pick<T>(from: readonly T[]): T {
  const found = from[draw(from.length)];
  if (found === undefined) throw new Error("nothing to pick from");
  return found;
}

const history: History = newHistory();
const cluster = await RealCluster.start({
  args: ["--lease", `${LEASE_MS}ms`, "--concurrency", "4"],
});
const until = performance.now() + seconds * 1_000;
/** Faults and load end; workers go on until everything is final. */
let draining = false;
const finished = new AbortController();
const running = (): boolean => performance.now() < until;

interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly replayed: boolean;
}

/** One call at one member; null when nothing came back. */
async function call(
  method: string,
  path: string,
  body?: unknown,
  headers = {},
): Promise<Reply | null> {
  const member: Member = pick(cluster.members);
  try {
    const response = await member.fetch(path, {
      method,
      headers: { "content-type": "application/json", ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(CALL_MS),
    });
    const text = await response.text();
    if (response.status === 500) history.broken(`${method} ${path} answered 500: ${text}`);
    return {
      status: response.status,
      body: text === "" ? null : (JSON.parse(text) as unknown),
      replayed: response.headers.get("idempotency-replayed") === "true",
    };
  } catch {
    return null;
  }
}

// ---------------------------------------------------------------- the load

function newTask(): Record<string, unknown> {
  const id = Bun.randomUUIDv7();
  const base = { id, priority: draw(10), retry: { kind: "fixed", initial_ms: 200, jitter: false } };
  const kind = draw(100);
  if (kind < 45) return { ...base, name: "outside", payload: { n: draw(1_000) }, max_retries: 2 };
  if (kind < 75) return { ...base, name: "echo", payload: [draw(1_000)] };
  if (kind < 85) return { ...base, name: "sleep", payload: { ms: draw(400) } };
  if (kind < 95) return { ...base, name: "fail", payload: { message: "as asked" }, max_retries: 1 };
  return { ...base, name: "echo", run_at: "2037-01-01T00:00:00Z" };
}

async function submitter(): Promise<void> {
  while (running()) {
    const tasks = Array.from({ length: chance(70) ? 1 : 1 + draw(20) }, newTask);
    for (const task of tasks) history.attempted.add(String(task["id"]));
    const single = tasks.length === 1 && chance(80);
    for (let attempt = 0; attempt < SUBMIT_TRIES; attempt++) {
      const reply = single
        ? await call("POST", "/api/tasks", tasks[0])
        : await call("POST", "/api/tasks/bulk", { tasks });
      if (reply !== null && (reply.status === 201 || reply.status === 200)) {
        for (const { id, name } of tasks) history.acknowledge(String(id), String(name));
        break;
      }
      if (reply !== null && reply.status !== 503 && reply.status !== 429) {
        history.broken(`a submit repeated with an equal body got ${JSON.stringify(reply)}`);
        break;
      }
      await Bun.sleep(100 + draw(300));
    }
    await Bun.sleep(draw(60));
  }
}

/** The same key at two members at once, then again later: one task. */
async function keyed(): Promise<void> {
  while (running()) {
    const headers = { "idempotency-key": Bun.randomUUIDv7() };
    const body = { name: "echo", payload: draw(1_000) };
    const ids = new Set<string>();
    let first = 0;
    let unknown = 0;
    for (let attempt = 0; attempt < SUBMIT_TRIES; attempt++) {
      const replies = await Promise.all([
        call("POST", "/api/tasks", body, headers),
        call("POST", "/api/tasks", body, headers),
      ]);
      for (const reply of replies) {
        if (reply?.status !== 201) {
          unknown += 1;
          if (reply !== null && reply.status !== 503 && reply.status !== 429)
            history.broken(`a repeated idempotency key got ${JSON.stringify(reply)}`);
          continue;
        }
        ids.add((reply.body as { id: string }).id);
        if (!reply.replayed) first += 1;
      }
      if (ids.size > 0 && attempt > 0) break;
      await Bun.sleep(100);
    }
    if (ids.size > 1) history.broken(`one idempotency key made the tasks ${[...ids].join(" ")}`);
    if (first > 1 || (first === 0 && unknown === 0))
      history.broken(`${first} answers to one idempotency key claim to be the first`);
    for (const id of ids) history.acknowledge(id, "echo");
    history.openKeys += ids.size === 0 ? 1 : 0;
    await Bun.sleep(200 + draw(400));
  }
}

async function canceller(): Promise<void> {
  while (running()) {
    await Bun.sleep(draw(150));
    const task = history.random(draw);
    if (task === null || task.retried) continue;
    task.cancelSent = true;
    const reply = await call("DELETE", `/api/tasks/${task.id}`);
    if (reply?.status === 204) task.cancelledAt ??= performance.now();
    else if (reply?.status === 404 && !history.clearedCancelled)
      history.broken(`${task.id} was acknowledged, and a cancel answered 404`);
  }
}

async function retrier(): Promise<void> {
  while (running()) {
    await Bun.sleep(500 + draw(500));
    const reply = await call("GET", "/api/tasks?status=Failed&limit=20");
    if (reply?.status !== 200) continue;
    for (const { id } of reply.body as TaskJson[]) {
      const task = history.tasks.get(id);
      if (task === undefined || task.cancelSent || !chance(30)) continue;
      task.retried = true;
      await call("POST", `/api/tasks/${id}/retry`);
    }
  }
}

async function clearer(): Promise<void> {
  while (running()) {
    await Bun.sleep(4_000 + draw(6_000));
    if (!running()) return;
    history.clearedCancelled = true;
    await call("DELETE", "/api/tasks/clear?status=Cancelled");
  }
}

/** What was acknowledged is seen by a later read at any member, and never grows older. */
async function reader(): Promise<void> {
  while (running()) {
    await Bun.sleep(draw(40));
    const task = history.random(draw);
    if (task === null) continue;
    const { seenVersion, cancelledAt } = task;
    const reply = await call("GET", `/api/tasks/${task.id}`);
    if (reply?.status === 404 && !(task.cancelSent && history.clearedCancelled))
      history.broken(`${task.id} was acknowledged, and a read says 404`);
    if (reply?.status !== 200) continue;
    const seen = reply.body as TaskJson;
    history.reads += 1;
    if (seen.version < seenVersion)
      history.broken(`${task.id} went back from version ${seenVersion} to ${seen.version}`);
    task.seenVersion = Math.max(task.seenVersion, seen.version);
    const cancelled = seen.status === "Cancelled" || seen.detail === "cancelling";
    if (cancelledAt !== null && !cancelled)
      history.broken(`${task.id} was cancelled, and is ${seen.status}/${seen.detail}`);
    if (task.completedBy !== null && !task.retried && seen.status !== "Completed")
      history.broken(`${task.id} was completed, and is ${seen.status}/${seen.detail}`);
  }
}

// ---------------------------------------------------------------- outside workers

interface Claimed {
  readonly id: string;
  readonly lease: { readonly fence: number; readonly attempt: number };
}

/** Repeats what got no answer, elsewhere; what a repeat of the same call answers must not differ. */
async function end(path: string, body: unknown): Promise<Reply | null> {
  for (let attempt = 0; attempt < 10; attempt++) {
    const reply = await call("POST", path, body);
    if (reply !== null && reply.status !== 503 && reply.status !== 429) return reply;
    await Bun.sleep(100 + draw(200));
  }
  return null;
}

async function work(worker: string, task: Claimed): Promise<void> {
  const { fence, attempt } = task.lease;
  const ref = { worker_id: worker, attempt, fence };
  const known = history.tasks.get(task.id);
  const complete = async (): Promise<void> => {
    const sentAt = performance.now();
    const result = { fence };
    const reply = await end(`/api/leases/${task.id}/complete`, { ...ref, result });
    if (reply === null) return;
    if (reply.status === 200) history.completed(task.id, fence, sentAt);
    else if (reply.status !== 409 && !(reply.status === 404 && history.clearedCancelled))
      history.broken(`a completion of ${task.id} got ${JSON.stringify(reply)}`);
    if (reply.status !== 200 || !chance(20)) return;
    const again = await end(`/api/leases/${task.id}/complete`, { ...ref, result });
    if (again !== null && again.status !== 200 && !(known?.retried ?? true))
      history.broken(`a repeated completion of ${task.id} got ${JSON.stringify(again)}`);
  };
  if (draining || chance(60)) {
    if (!draining) await Bun.sleep(draw(300));
    return complete();
  }
  switch (draw(5)) {
    case 0:
      await end(`/api/leases/${task.id}/fail`, { ...ref, error: "as drawn" });
      return;
    case 1:
      await end(`/api/leases/${task.id}/snooze`, { ...ref, delay_ms: draw(500) });
      return;
    case 2:
      await end(`/api/leases/${task.id}/release`, ref);
      return;
    case 3:
      // Silent for longer than the lease, then late with an old fence.
      await Bun.sleep(LEASE_MS * 1.2 + draw(2_000));
      return complete();
    default:
      for (let beat = 0; beat < 3; beat++) {
        await Bun.sleep(LEASE_MS / 3);
        const leases = [{ task_id: task.id, attempt, fence, progress: { percent: beat } }];
        await call("POST", "/api/leases/heartbeat", { worker_id: worker, leases });
      }
      return complete();
  }
}

async function outsideWorker(worker: string): Promise<void> {
  while (!finished.signal.aborted) {
    const request_id = Bun.randomUUIDv7();
    const body = {
      worker_id: worker,
      request_id,
      names: ["outside"],
      max: 1 + draw(4),
      wait_ms: 500,
    };
    const reply = await end("/api/leases/claim", body);
    if (reply?.status !== 200) continue;
    const { tasks } = reply.body as { tasks: Claimed[] };
    for (const task of tasks) history.claimed(task.id, worker, task.lease);
    await Promise.all(tasks.map((task) => work(worker, task)));
  }
}

// ---------------------------------------------------------------- the faults

async function nemesis(): Promise<void> {
  while (running()) {
    await Bun.sleep(1_000 + draw(2_500));
    if (!running()) return;
    const leader = await cluster.leader().catch(() => null);
    const victim = leader !== null && chance(60) ? leader : pick(cluster.members);
    history.faults += 1;
    if (chance(50)) {
      await victim.kill();
      if (chance(15)) {
        const second = pick(cluster.members);
        await second.kill();
        if (second !== victim) await second.start();
      } else await Bun.sleep(draw(3_000));
      await victim.start();
    } else {
      victim.pause();
      await Bun.sleep(200 + draw(4_000));
      victim.resume();
    }
  }
}

// ---------------------------------------------------------------- the run

try {
  console.log(
    `seed ${values.seed}, ${seconds} s, members on ${cluster.members.map(({ port }) => port).join(" ")}`,
  );
  const workers = ["w1", "w2", "w3"].map(outsideWorker);
  await Promise.all([
    ...Array.from({ length: 3 }, submitter),
    keyed(),
    canceller(),
    retrier(),
    clearer(),
    reader(),
    reader(),
    nemesis(),
  ]);
  draining = true;
  await eventually(
    "every task to be final",
    async () => {
      const reply = await call("GET", "/api/tasks?status=Pending,Running&limit=1000");
      if (reply?.status !== 200) return null;
      return (reply.body as TaskJson[]).every(({ detail }) => detail === "scheduled");
    },
    120_000,
  ).catch((error: unknown) => history.broken(String(error)));
  finished.abort();
  await Promise.all(workers);
  await checkHistory(cluster, history);
} finally {
  for (const member of cluster.members) {
    const lines = member.output
      .split("\n")
      .filter((line) => /invariant|fatal|ended with/i.test(line));
    for (const line of lines.slice(0, 10)) history.broken(`${member.id} wrote: ${line}`);
  }
  await cluster.stop();
}

console.table(history.summary());
for (const what of history.violations.slice(0, 40)) console.log(`BROKEN: ${what}`);
console.log(
  history.violations.length === 0
    ? "Nothing was broken."
    : `${history.violations.length} promises broken.`,
);
process.exit(history.violations.length === 0 ? 0 : 1);
