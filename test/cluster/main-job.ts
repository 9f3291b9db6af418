/**
 * The main job, on real input: one `io` task per file of a real tree, half of them submitted one by one,
 * half in bulk, at a follower, while the leader is killed with SIGKILL in the middle and started again.
 * Then every acknowledged task must be Completed, every digest must be what `sha256sum` says, nothing may
 * be missing or listed twice, and the member that returned must be up to date.
 */
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { eventually, type Member, RealCluster, type TaskJson } from "./harness.ts";

export interface MainJobReport {
  files: number;
  acknowledged: number;
  completed: number;
  wrongDigests: number;
  missing: number;
  listedTwice: number;
  /** Claims of all tasks together: above their number by those that the killed member had, and by those handed back. */
  executions: number;
  submitMs: number;
  totalMs: number;
  returnedMemberApplied: number;
  leaderApplied: number;
}

/** `io` hashes larger ones as well, up to 64 MiB; here many files matter, not large ones. */
const FILE_MAX_BYTES = 16 * 1024 * 1024;

interface Found {
  /** Absolute, sorted. */
  readonly files: readonly string[];
  /** Regular files that are not among them: over the limit, or too large. */
  readonly leftOut: number;
}

/** Regular files below `folder`, at most `limit`. */
async function filesBelow(folder: string, limit: number): Promise<Found> {
  const names = (await readdir(folder, { recursive: true })).sort();
  const files: string[] = [];
  let leftOut = 0;
  for (const name of names) {
    const path = join(folder, name);
    const stat = await lstat(path);
    if (!stat.isFile()) continue;
    if (stat.size < FILE_MAX_BYTES && files.length < limit) files.push(path);
    else leftOut += 1;
  }
  return { files, leftOut };
}

/** What `sha256sum` says of each file. */
async function digests(files: readonly string[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (let i = 0; i < files.length; i += 500) {
    const child = Bun.spawn(["sha256sum", "--zero", "--", ...files.slice(i, i + 500)], {
      stdout: "pipe",
    });
    for (const line of (await new Response(child.stdout).text()).split("\0")) {
      if (line !== "") found.set(line.slice(66), line.slice(0, 64));
    }
  }
  return found;
}

export async function mainJob(
  root: string,
  limit: number,
  say: (line: string) => void,
): Promise<MainJobReport> {
  const { files, leftOut } = await filesBelow(root, limit);
  const expected = await digests(files);
  say(`${files.length} files below ${root}, one task each`);
  if (leftOut > 0) say(`left out, being over 16 MiB or over ${limit} files: ${leftOut}`);
  const cluster = await RealCluster.start({ args: ["--io-root", root, "--lease", "5s"] });
  try {
    const leader = await cluster.leader();
    const follower = (await cluster.followers())[0] ?? leader;
    say(`three members run; ${leader.id} leads, ${follower.id} takes the submits`);
    const startedAt = performance.now();
    const pathOf = new Map<string, string>();
    const half = Math.floor(files.length / 2);
    let killed: Promise<void> | null = null;
    const kill = async (): Promise<void> => {
      say(`SIGKILL to the leader ${leader.id} after ${pathOf.size} acknowledged submits`);
      await leader.kill("SIGKILL");
      await Bun.sleep(1_000);
      await leader.start();
      say(`${leader.id} is started again`);
    };
    const killAt = Math.floor(files.length / 3);
    const acknowledge = (id: string, path: string): void => {
      pathOf.set(id, path);
      if (pathOf.size >= killAt) killed ??= kill();
    };
    await Promise.all([
      submitSingly(follower, files.slice(0, half), acknowledge),
      submitInBulk(follower, files.slice(half), acknowledge),
    ]);
    const submitMs = performance.now() - startedAt;
    say(`${pathOf.size} tasks acknowledged in ${(submitMs / 1000).toFixed(1)} s`);
    await (killed ?? kill());
    await eventually(
      "every task to be final",
      async () => {
        // On a busy machine the members may be without a leader for a moment.
        const response = await follower.fetch("/api/stats");
        if (response.status === 503) return false;
        if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
        const { stats } = (await response.json()) as { stats: Record<string, number> };
        return (stats.Pending ?? 0) + (stats.Running ?? 0) === 0;
      },
      120_000,
    );
    const totalMs = performance.now() - startedAt;
    const listed = await listAll(leader);
    const byId = new Map(listed.map((task) => [task.id, task]));
    const wrong = [...pathOf].filter(([id, path]) => digestOf(byId.get(id)) !== expected.get(path));
    const { applied_index: returned } = await leader.json<{ applied_index: number }>(
      "/api/cluster",
    );
    const { applied_index: leading } = await (
      await cluster.leader()
    ).json<{ applied_index: number }>("/api/cluster");
    return {
      files: files.length,
      acknowledged: pathOf.size,
      completed: [...pathOf.keys()].filter((id) => byId.get(id)?.status === "Completed").length,
      wrongDigests: wrong.length,
      missing: [...pathOf.keys()].filter((id) => !byId.has(id)).length,
      listedTwice: listed.length - byId.size,
      executions: listed.reduce((sum, { attempt }) => sum + attempt, 0),
      submitMs: Math.round(submitMs),
      totalMs: Math.round(totalMs),
      returnedMemberApplied: returned,
      leaderApplied: leading,
    };
  } finally {
    await cluster.stop();
  }
}

function digestOf(task: TaskJson | undefined): string | null {
  const result = task?.result;
  return typeof result === "object" && result !== null && "sha256" in result
    ? String(result.sha256)
    : null;
}

/** Submits are retried under the same id, so that an answer lost in the election doubles nothing. */
async function insist(member: Member, path: string, body: unknown): Promise<void> {
  await eventually(
    `POST ${path}`,
    async () => {
      const response = await member.fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      if (response.ok) return true;
      if (response.status !== 503 && response.status !== 429)
        throw new Error(`${response.status}: ${await response.text()}`);
      return null;
    },
    60_000,
  );
}

async function submitSingly(
  member: Member,
  files: readonly string[],
  acknowledge: (id: string, path: string) => void,
): Promise<void> {
  let next = 0;
  const caller = async (): Promise<void> => {
    for (;;) {
      const path = files[next++];
      if (path === undefined) return;
      const id = Bun.randomUUIDv7();
      await insist(member, "/api/tasks", { id, name: "io", payload: { path } });
      acknowledge(id, path);
    }
  };
  await Promise.all(Array.from({ length: 8 }, caller));
}

async function submitInBulk(
  member: Member,
  files: readonly string[],
  acknowledge: (id: string, path: string) => void,
): Promise<void> {
  for (let i = 0; i < files.length; i += 50) {
    const tasks = files
      .slice(i, i + 50)
      .map((path) => ({ id: Bun.randomUUIDv7(), name: "io", payload: { path } }));
    await insist(member, "/api/tasks/bulk", { tasks });
    for (const { id, payload } of tasks) acknowledge(id, payload.path);
  }
}

async function listAll(member: Member): Promise<TaskJson[]> {
  const all: TaskJson[] = [];
  let path: string | null = "/api/tasks?limit=1000";
  while (path !== null) {
    const response: Response = await member.fetch(path);
    all.push(...((await response.json()) as TaskJson[]));
    const next: string | undefined = /<([^>]+)>;\s*rel="next"/.exec(
      response.headers.get("link") ?? "",
    )?.[1];
    path = next === undefined ? null : next.replace(/^https?:\/\/[^/]+/, "");
  }
  return all;
}
