/**
 * Records the data folders of a cluster of three for the builds to come: `bun run test/cluster/record-fixture.ts`.
 *
 * The cluster goes through what leaves traces in files: tasks in every status, retries, logs, a large payload,
 * idempotency keys, leases that are held, several terms, a log that was compacted, a member that got a snapshot, one
 * folder closed in order and two of killed processes. Needs a checkout without changes: the commit that is written
 * beside the folders must be the build that wrote them. Takes about two minutes.
 */
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ABOUT, ARCHIVE, FIXTURE, type FixtureAbout } from "./fixture.ts";
import {
  type ClusterView,
  eventually,
  type Member,
  RealCluster,
  type TaskJson,
} from "./harness.ts";

const WORKER = "recorder";
/** Nobody but this process ever takes tasks of this name. */
const OUTSIDE = "outside";
const YEARS_MS = 50 * 365 * 86_400_000;
const ARCHIVE_BYTES_MAX = 300_000;

const commit = await git("rev-parse", "HEAD");
const changed = (
  await git("status", "--porcelain", "--", "src", "package.json", "bun.lock")
).trim();
if (changed !== "") {
  console.error(`there are changes that no commit holds:\n${changed}`);
  process.exit(2);
}

const KEPT = "completed=3650d,cancelled=3650d,failed=3650d";
const cluster = await RealCluster.create({
  args: ["--concurrency=2", "--log-level=warn", "--lease=24h", `--retention=${KEPT}`],
});
try {
  await Promise.all(cluster.members.map((member) => member.start()));
  await cluster.leader();
  const [n1, n2, n3] = [cluster.member(0), cluster.member(1), cluster.member(2)];
  // From now on the name is somebody's: no built-in handler takes it.
  await claim(n1, 1);

  await n3.kill();
  await outgrow(await cluster.leader());
  await compacted(n1);
  await compacted(n2);
  await n3.start();
  await eventually(
    "a snapshot",
    async () => (await figure(n3, "flotilla_snapshots_installed_total")) === 1,
  );
  say("two logs are compacted, the third member has a snapshot");

  await fill(n1);
  for (let i = 0; i < 2; i++) {
    const leader = await cluster.leader();
    await leader.kill();
    await cluster.leader();
    await submit(n1 === leader ? n2 : n1, { payload: { term: i } });
    await leader.start();
    await cluster.leader();
  }
  await settled();

  const tasks = await allTasks(n1);
  const view = await n1.json<ClusterView & { machine_version: { in_force: number } }>(
    "/api/cluster",
  );
  // What was applied is committed to the state's file a moment later.
  await Bun.sleep(1_000);
  await Promise.all([n1.kill("SIGTERM"), n2.kill(), n3.kill()]);
  await write(tasks, {
    commit,
    recordedAt: new Date().toISOString(),
    clusterId: view.cluster_id ?? "",
    machineVersion: view.machine_version.in_force,
    term: view.term,
    applied: view.applied_index,
  });
} catch (error) {
  for (const { id, output } of cluster.members) console.error(`--- ${id}\n${output.slice(-3_000)}`);
  console.error(error);
  process.exitCode = 1;
} finally {
  await cluster.stop();
}

function say(text: string): void {
  console.log(text);
}

async function git(...args: string[]): Promise<string> {
  const child = Bun.spawn(["git", ...args], { stdout: "pipe", cwd: import.meta.dir });
  return (await new Response(child.stdout).text()).trim();
}

/** Retried while the cluster has no leader. */
async function post<T>(member: Member, path: string, body: unknown, key?: string): Promise<T> {
  const headers = {
    "content-type": "application/json",
    ...(key === undefined ? {} : { "idempotency-key": key }),
  };
  return eventually(path, async () => {
    const response = await member.fetch(path, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
    if (response.status === 503) return null;
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  });
}

function submit(member: Member, fields: object, key?: string): Promise<TaskJson> {
  return post(member, "/api/tasks", { name: OUTSIDE, ...fields }, key);
}

async function claim(member: Member, max: number): Promise<readonly TaskJson[]> {
  const asked = { worker_id: WORKER, names: [OUTSIDE], max, wait_ms: 0 };
  return (await post<{ tasks: TaskJson[] }>(member, "/api/leases/claim", asked)).tasks;
}

/** The task that was just submitted, claimed: whatever else is ready has a lower priority. */
async function running(member: Member, fields: object = {}): Promise<TaskJson> {
  const task = await submit(member, {
    priority: 9,
    max_retries: 2,
    retry: { kind: "fixed", initial_ms: 1 },
    // By the clock of whoever starts on the folders it would have run out long ago.
    timeout_ms: null,
    ...fields,
  });
  return held(member, task.id);
}

async function held(member: Member, id: string): Promise<TaskJson> {
  return eventually(
    `the lease of ${id}`,
    async () => (await claim(member, 1)).find((task) => task.id === id) ?? null,
  );
}

async function end(member: Member, task: TaskJson, how: string, body: object): Promise<void> {
  const lease = { attempt: task.lease?.attempt, fence: task.lease?.fence };
  await post(member, `/api/leases/${task.id}/${how}`, { worker_id: WORKER, ...lease, ...body });
}

async function is(member: Member, id: string, status: string): Promise<void> {
  await eventually(`${id} to be ${status}`, async () => {
    return (await member.json<TaskJson>(`/api/tasks/${id}`)).status === status;
  });
}

/** A log that is longer than the state, and older than a minute in the end. */
async function outgrow(member: Member): Promise<void> {
  for (let i = 1; i <= 120; i++) {
    await submit(member, { payload: "x".repeat(60_000) });
    if (i % 20 === 0) await member.json("/api/tasks/clear", { method: "DELETE" });
  }
}

async function compacted(member: Member): Promise<void> {
  await eventually(
    `the log of ${member.id} to be compacted`,
    async () => {
      const { applied_index } = await member.json<ClusterView>("/api/cluster?consistency=stale");
      return applied_index - (await figure(member, "flotilla_log_entries")) > 20;
    },
    180_000,
  );
}

async function fill(member: Member): Promise<void> {
  // Ended by members' own executors.
  const ended: [string, object][] = [
    [
      "Completed",
      {
        name: "echo",
        payload: { text: 'ä\u0000"\u{1f680}', n: 1.5 },
        priority: 1,
      },
    ],
    ["Completed", { name: "compute", payload: { iterations: 3, data: "x" }, queue: "other" }],
    ["Failed", { name: "fail", payload: { message: "no more", retryable: false } }],
    [
      "Failed",
      {
        name: "fail",
        payload: { message: "again and again" },
        max_retries: 2,
        retry: { kind: "fixed", initial_ms: 1 },
      },
    ],
    ["Failed", { name: "sleep", payload: { ms: 60_000 }, timeout_ms: 100, max_retries: 0 }],
  ];
  for (const [status, fields] of ended) await is(member, (await submit(member, fields)).id, status);

  // Ended by a worker outside.
  const done = await running(member, { payload: "y".repeat(40_000) });
  await end(member, done, "logs", { lines: ["one", "two"] });
  await end(member, done, "fail", {
    error: { type: "Error", message: "the first time", stack: "here" },
  });
  await end(member, await held(member, done.id), "complete", { result: { size: 40_000 } });
  await end(member, await running(member), "snooze", { delay_ms: 86_400_000 });
  await end(
    member,
    await running(member, { retry: { kind: "fixed", initial_ms: 86_400_000 } }),
    "fail",
    {
      error: { type: "Error", message: "try in a day" },
    },
  );

  // Not ended.
  const cancelling = await running(member);
  await running(member, { payload: { held: true } });
  await member.fetch(`/api/tasks/${cancelling.id}`, { method: "DELETE" });
  const cancelled = await submit(member, { payload: { cancelled: true } });
  await member.fetch(`/api/tasks/${cancelled.id}`, { method: "DELETE" });
  await submit(member, { run_at: new Date(Date.now() + YEARS_MS).toISOString() });
  for (let i = 0; i < 20; i++)
    await submit(member, { payload: { i }, priority: i % 10 }, `key-${i}`);
  await post(
    member,
    "/api/tasks/bulk",
    { tasks: [{ name: OUTSIDE }, { name: OUTSIDE, payload: null }] },
    "bulk",
  );
}

/** Everybody has applied everything. */
async function settled(): Promise<void> {
  await eventually("all to have applied the same", async () => {
    const views = await Promise.all(
      cluster.members.map((member) => member.json<ClusterView>("/api/cluster?consistency=stale")),
    );
    return new Set(views.map(({ applied_index }) => applied_index)).size === 1;
  });
}

async function figure(member: Member, name: string): Promise<number> {
  const text = await (await member.fetch("/metrics")).text();
  return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)?.[1]);
}

async function allTasks(member: Member): Promise<TaskJson[]> {
  const newestFirst = await member.json<TaskJson[]>("/api/tasks?limit=1000");
  return newestFirst.toReversed();
}

async function write(tasks: readonly TaskJson[], about: FixtureAbout): Promise<void> {
  const files: Record<string, Uint8Array<ArrayBuffer> | string> = {
    "tasks.json": JSON.stringify(tasks),
  };
  for (const { id } of cluster.members) {
    const folder = join(cluster.folder, id);
    for (const name of readdirSync(folder))
      files[`${id}/${name}`] = await Bun.file(join(folder, name)).bytes();
  }
  const archive = Bun.zstdCompressSync(await new Bun.Archive(files).bytes(), { level: 19 });
  if (archive.length > ARCHIVE_BYTES_MAX)
    throw new Error(
      `the archive has ${archive.length} bytes, and ${ARCHIVE_BYTES_MAX} at most are to be kept`,
    );
  rmSync(FIXTURE, { recursive: true, force: true });
  mkdirSync(FIXTURE, { recursive: true });
  await Bun.write(join(FIXTURE, ARCHIVE), archive);
  await Bun.write(join(FIXTURE, ABOUT), `${JSON.stringify(about, null, 2)}\n`);
  const statuses = Object.groupBy(tasks, ({ status }) => status);
  const counts = Object.entries(statuses).map(([status, some]) => `${some?.length} ${status}`);
  say(`recorded at ${about.commit}: ${counts.join(", ")}; ${archive.length} bytes`);
}
