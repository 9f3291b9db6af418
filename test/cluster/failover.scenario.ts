/** One client at one follower; members that die, one, two and all of them; one that leaves. */
import { expect } from "bun:test";
import { eventually, type Member, type RealCluster, type TaskJson } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

const completed = (member: Member, id: string): Promise<TaskJson> =>
  eventually(`task ${id} to complete`, async () => {
    const task = await member.json<TaskJson>(`/api/tasks/${id}?wait=5`);
    return task.status === "Completed" ? task : null;
  });

scenario(
  "a client that sees one follower only can submit, read, list, wait, cancel, claim and complete there",
  () =>
    withCluster({}, async (cluster) => {
      const follower = (await cluster.followers())[0] ?? cluster.member(0);
      const echo = await follower.post<TaskJson>("/api/tasks", {
        name: "echo",
        payload: { hello: "there" },
      });
      expect((await completed(follower, echo.id)).result).toEqual({ hello: "there" });
      const later = await follower.post<TaskJson>("/api/tasks", {
        name: "echo",
        run_at: "2030-01-01T00:00:00Z",
      });
      expect((await follower.fetch(`/api/tasks/${later.id}`, { method: "DELETE" })).status).toBe(
        204,
      );
      expect((await follower.json<TaskJson>(`/api/tasks/${later.id}`)).status).toBe("Cancelled");
      // The first claim by name puts it on record: from then on the built-in "*" leaves it alone.
      await follower.post("/api/leases/claim", {
        worker_id: "w1",
        names: ["outside"],
        max: 1,
        wait_ms: 0,
      });
      const outside = await follower.post<TaskJson>("/api/tasks", {
        name: "outside",
        queue: "external",
      });
      const claim = await follower.post<{ tasks: TaskJson[] }>("/api/leases/claim", {
        worker_id: "w1",
        queues: ["external"],
        names: ["outside"],
        max: 5,
        wait_ms: 20_000,
      });
      expect(claim.tasks.map(({ id }) => id)).toEqual([outside.id]);
      const { attempt, fence } = claim.tasks[0]?.lease ?? { attempt: 0, fence: 0 };
      const beat = await follower.post<{ leases: { status: string }[] }>("/api/leases/heartbeat", {
        worker_id: "w1",
        leases: [{ task_id: outside.id, attempt, fence }],
      });
      expect(beat.leases[0]?.status).toBe("ok");
      await follower.post(`/api/leases/${outside.id}/complete`, {
        worker_id: "w1",
        attempt,
        fence,
        result: [1, 2],
      });
      expect((await follower.json<TaskJson>(`/api/tasks/${outside.id}`)).result).toEqual([1, 2]);
      const list = await follower.json<TaskJson[]>("/api/tasks?limit=2");
      expect(list.map(({ id }) => id)).toContain(outside.id);

      // A claim that waits gets its task when it is submitted at another member.
      const other = cluster.members.find((member) => member !== follower) ?? follower;
      await follower.post("/api/leases/claim", {
        worker_id: "w2",
        names: ["awaited"],
        max: 1,
        wait_ms: 0,
      });
      const waiting = follower.post<{ tasks: TaskJson[] }>("/api/leases/claim", {
        worker_id: "w2",
        names: ["awaited"],
        max: 1,
        wait_ms: 20_000,
      });
      await Bun.sleep(200);
      const task = await other.post<TaskJson>("/api/tasks", { name: "awaited" });
      expect((await waiting).tasks[0]?.id).toBe(task.id);
      await allAreKilled(cluster);
    }),
);

scenario(
  "one of three dies: writes go on; two: 503 with Retry-After and a reason, stale reads go on; one returns: all goes on",
  () =>
    withCluster({}, async (cluster) => {
      const leader = await cluster.leader();
      const [follower, other] = await cluster.followers();
      if (follower === undefined || other === undefined) throw new Error("two followers expected");
      const before = await follower.post<TaskJson>("/api/tasks", { name: "echo", payload: 1 });
      await leader.kill();
      const startedAt = performance.now();
      const during = await follower.post<TaskJson>("/api/tasks", { name: "echo", payload: 2 });
      console.log(
        `first write after the leader's death answered after ${Math.round(performance.now() - startedAt)} ms`,
      );
      expect(performance.now() - startedAt).toBeLessThan(5_000);
      await completed(follower, during.id);

      await other.kill();
      const askedAt = performance.now();
      const refused = await follower.fetch("/api/tasks", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name: "echo" }),
      });
      console.log(`503 after ${Math.round(performance.now() - askedAt)} ms`);
      expect(refused.status).toBe(503);
      expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
      expect(((await refused.json()) as { detail: string }).detail.length).toBeGreaterThan(10);
      expect(performance.now() - askedAt).toBeLessThan(6_000);
      const stale = await follower.fetch(`/api/tasks/${before.id}?consistency=stale`);
      expect(stale.status).toBe(200);
      expect(Number(stale.headers.get("flotilla-applied-index"))).toBeGreaterThan(0);
      expect((await follower.fetch("/health")).status).toBe(503);

      await other.start();
      const again = await eventually("a write after the return", async () => {
        const response = await follower.fetch("/api/tasks", {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ name: "echo", payload: 3 }),
        });
        return response.status === 201 ? ((await response.json()) as TaskJson) : null;
      });
      await completed(other, again.id);
      await leader.start();
      await completed(leader, again.id);
      await oneLeaves(cluster);
    }),
);

/** kill -9 of all at once loses nothing acknowledged. */
async function allAreKilled(cluster: RealCluster): Promise<void> {
  const ids: string[] = [];
  for (let i = 0; i < 50; i++) {
    const task = await cluster
      .member(i % 3)
      .post<TaskJson>("/api/tasks", { name: "echo", payload: i, run_at: "2030-01-01T00:00:00Z" });
    ids.push(task.id);
  }
  await Promise.all(cluster.members.map((member) => member.kill()));
  await Promise.all(cluster.members.map((member) => member.start()));
  await cluster.leader();
  for (const id of ids)
    expect((await cluster.member(1).json<TaskJson>(`/api/tasks/${id}`)).status).toBe("Pending");
}

/** SIGTERM drains: exit code 0, leadership handed over, what runs ends or goes back without costing an attempt. */
async function oneLeaves(cluster: RealCluster): Promise<void> {
  const leader = await cluster.leader();
  const task = await leader.post<TaskJson>("/api/tasks", {
    name: "sleep",
    payload: { ms: 1_500 },
  });
  const code = await leader.kill("SIGTERM");
  expect(code).toBe(0);
  const next = await cluster.leader();
  expect(next).not.toBe(leader);
  const done = await completed(next, task.id);
  expect(done.crashes).toBe(0);
  expect(done.retries).toBe(0);
}
