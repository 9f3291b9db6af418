/** First answers over real processes: again after the leader was killed, everything cleared, and all restarted. */
import { expect } from "bun:test";
import { eventually, type Member } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

interface Answer {
  readonly status: number;
  readonly replayed: boolean;
  readonly text: string;
}

/** Until it is neither 503 nor cut off: as a client repeats it. */
function post(member: Member, path: string, key: string, body: string): Promise<Answer> {
  return eventually(`an answer of ${path}`, async () => {
    const headers = { "content-type": "application/json", "idempotency-key": key };
    const response = await member.fetch(path, { method: "POST", headers, body }).catch(() => null);
    if (response === null || response.status === 503) return null;
    const replayed = response.headers.get("idempotency-replayed") === "true";
    return { status: response.status, replayed, text: await response.text() };
  });
}

scenario(
  "every kind of POST gives the same bytes again, by any member, after a kill, a clear and a restart",
  async () => {
    await withCluster({ args: ["--concurrency", "0"] }, async (cluster) => {
      const [one, two] = await cluster.followers();
      if (one === undefined || two === undefined) throw new Error("no followers");
      const posts: [path: string, body: string][] = [
        ["/api/tasks", '{"name":"x","payload":{ "n": 1.0 }}'],
        ["/api/tasks/bulk", '{"tasks":[{"name":"x"},{"name":"y","payload":"z"}]}'],
        ["/api/leases/claim", '{"worker_id":"w","max":1,"names":["x"],"wait_ms":20000}'],
      ];
      const firsts: Answer[] = [];
      for (const [path, body] of posts) firsts.push(await post(one, path, "k", body));
      const { tasks } = JSON.parse(firsts[2]?.text ?? "{}") as {
        tasks: { id: string; lease: { attempt: number; fence: number } }[];
      };
      const [held] = tasks;
      if (held === undefined) throw new Error("nothing was claimed");
      const lease = { attempt: held.lease.attempt, fence: held.lease.fence };
      const leaseText = JSON.stringify({ worker_id: "w", ...lease });
      const lines = JSON.stringify({ worker_id: "w", ...lease, lines: ["a"] });
      const beat = JSON.stringify({ worker_id: "w", leases: [{ task_id: held.id, ...lease }] });
      for (const [path, body] of [
        ["/api/leases/heartbeat", beat],
        [`/api/leases/${held.id}/logs`, lines],
        [`/api/leases/${held.id}/complete`, leaseText],
        [`/api/tasks/${held.id}/retry`, "{}"],
        ["/api/workers/w/quiet", "{}"],
      ] as const) {
        posts.push([path, body]);
        firsts.push(await post(two, path, "k", body));
      }
      expect(firsts.map(({ status, replayed }) => [status, replayed])).toEqual(
        firsts.map((_, index) => [index < 2 ? 201 : 200, false]),
      );
      const sameAgain = async (member: Member): Promise<void> => {
        for (const [index, [path, body]] of posts.entries()) {
          const first = firsts[index];
          expect([path, await post(member, path, "k", body)]).toEqual([
            path,
            { status: first?.status ?? 0, replayed: true, text: first?.text ?? "" },
          ]);
        }
      };
      const leader = await cluster.leader();
      await leader.kill();
      await sameAgain(one);
      await eventually("a clear", async () => {
        const response = await one
          .fetch("/api/tasks/clear", { method: "DELETE" })
          .catch(() => null);
        return response?.status === 200 ? true : null;
      });
      await sameAgain(two);
      await Promise.all([one.kill(), two.kill()]);
      await Promise.all([leader.start(), one.start(), two.start()]);
      await sameAgain(leader);
      expect((await post(one, "/api/tasks", "k", '{"name":"other"}')).status).toBe(422);
    });
  },
);
