/** After a chaos run, with all members back and the queue at rest: what the members say against what the clients know. */
import type { Acknowledged, History } from "./chaos-history.ts";
import {
  type ClusterView,
  eventually,
  type Member,
  type RealCluster,
  type TaskJson,
} from "./harness.ts";

interface AttemptJson {
  readonly attempt: number;
  readonly fence: number;
  readonly outcome: string;
}

type Listed = TaskJson & { readonly max_retries: number };

/** Every task that `member` lists, page by page. */
async function listAll(member: Member, consistency: string): Promise<Listed[]> {
  const tasks: Listed[] = [];
  let path: string | null = `/api/tasks?limit=500&consistency=${consistency}`;
  while (path !== null) {
    const response: Response = await member.fetch(path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    tasks.push(...((await response.json()) as Listed[]));
    const next: string | undefined = /<([^>]+)>; *rel="next"/.exec(
      response.headers.get("link") ?? "",
    )?.[1];
    path = next === undefined ? null : next.replace(/^https?:\/\/[^/]+/, "");
  }
  return tasks;
}

export async function checkHistory(cluster: RealCluster, history: History): Promise<void> {
  await eventually("equal applied indexes", async () => {
    const views = await Promise.all(
      cluster.members.map((member) => member.json<ClusterView>("/api/cluster")),
    );
    return new Set(views.map((view) => view.applied_index)).size === 1;
  });
  const listed = await listAll(cluster.member(0), "linearizable");
  const byId = new Map(listed.map((task) => [task.id, task]));
  if (byId.size !== listed.length)
    history.broken(`${listed.length - byId.size} tasks are listed twice`);

  await checkMembersAgree(cluster, history, listed);
  await checkStats(cluster, history, listed);
  for (const task of history.tasks.values()) checkTask(history, task, byId.get(task.id) ?? null);
  const strangers = listed.filter(
    ({ id }) => !history.tasks.has(id) && !history.attempted.has(id),
  ).length;
  if (strangers > history.openKeys)
    history.broken(
      `${strangers} tasks that nobody asked for, ${history.openKeys} keyed submits open`,
    );
  await checkAttempts(cluster.member(1), history, listed);
}

async function checkMembersAgree(
  cluster: RealCluster,
  history: History,
  listed: readonly Listed[],
): Promise<void> {
  const expected = JSON.stringify(listed);
  for (const member of cluster.members) {
    for (const consistency of ["linearizable", "stale"]) {
      if (JSON.stringify(await listAll(member, consistency)) !== expected)
        history.broken(`${member.id} lists other tasks (${consistency}) than n1`);
    }
  }
}

async function checkStats(
  cluster: RealCluster,
  history: History,
  listed: readonly Listed[],
): Promise<void> {
  const recount: Record<string, number> = {
    Pending: 0,
    Running: 0,
    Completed: 0,
    Failed: 0,
    Cancelled: 0,
  };
  for (const { status } of listed) recount[status] = (recount[status] ?? 0) + 1;
  const expected = JSON.stringify({ stats: recount, total_tasks: listed.length });
  for (const member of cluster.members) {
    const stats = JSON.stringify(await member.json("/api/stats"));
    if (stats !== expected) history.broken(`${member.id} counts ${stats}, the list ${expected}`);
  }
}

function checkTask(history: History, known: Acknowledged, task: Listed | null): void {
  const { id, cancelSent, cancelledAt, completedBy, retried } = known;
  if (task === null) {
    if (!(cancelSent && history.clearedCancelled))
      history.broken(`${id} was acknowledged and is gone`);
    return;
  }
  const { status, detail, max_retries, retries, crashes } = task;
  if (cancelledAt !== null && status !== "Cancelled")
    history.broken(`${id} was cancelled and is ${status}/${detail}`);
  if (completedBy !== null && !retried) {
    const result = JSON.stringify(task.result);
    if (status !== "Completed" || result !== JSON.stringify({ fence: completedBy }))
      history.broken(`${id} was completed by fence ${completedBy} and is ${status} with ${result}`);
  }
  if (status === "Cancelled" && !cancelSent) history.broken(`${id} is Cancelled, and nobody asked`);
  if (status === "Failed" && known.name === "echo" && detail !== "crashed")
    history.broken(`${id}, an echo, failed: ${JSON.stringify(task.last_error)}`);
  if (retries > max_retries || crashes > 3)
    history.broken(`${id} was charged ${retries} of ${max_retries} retries, ${crashes} crashes`);
}

async function checkAttempts(
  member: Member,
  history: History,
  listed: readonly Listed[],
): Promise<void> {
  const holders = new Map<number, string>();
  for (const task of listed) {
    const { items } = await member.json<{ items: AttemptJson[] }>(`/api/tasks/${task.id}/attempts`);
    const open = items.filter(({ outcome }) => outcome === "running").length;
    if (open > 0) history.broken(`${task.id} is ${task.status} and has ${open} attempts running`);
    if (items.length !== Math.min(100, task.attempt))
      history.broken(`${task.id} counts ${task.attempt} attempts and lists ${items.length}`);
    const completions = items.filter(({ outcome }) => outcome === "completed").length;
    if (completions > 1 && !(history.tasks.get(task.id)?.retried ?? false))
      history.broken(`${task.id} was completed ${completions} times`);
    if (task.status === "Completed" && items.at(-1)?.outcome !== "completed")
      history.broken(`${task.id} is Completed, its last attempt ${items.at(-1)?.outcome}`);
    let last = 0;
    for (const { attempt, fence } of items) {
      if (fence <= last)
        history.broken(`${task.id} attempt ${attempt}: fence ${fence} after ${last}`);
      last = fence;
      const holder = `${task.id} attempt ${attempt}`;
      const given = history.fences.get(fence);
      if (given !== undefined && !given.startsWith(`${holder} `))
        history.broken(`fence ${fence} was given to ${given}, and is recorded for ${holder}`);
      if (holders.has(fence)) history.broken(`fence ${fence} is recorded twice`);
      holders.set(fence, holder);
    }
  }
}
