/** A row that rots on one member's disk, on real processes and real files. */
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type ClusterView, eventually, RealCluster, type TaskJson } from "./harness.ts";

interface HealthJson {
  status: string;
  reason?: string;
  alarms: { kind: string; member: string | null; sentence: string }[];
}

test("a row that changed on one member's disk is found, and that member stops answering", async () => {
  const cluster = await RealCluster.start({ args: ["--concurrency", "0"] });
  try {
    const [odd] = await cluster.followers();
    if (odd === undefined) throw new Error("no follower");
    const first = cluster.members.find((member) => member !== odd);
    if (first === undefined) throw new Error("no member");
    const { id } = await first.post<TaskJson>("/api/tasks", { name: "t", payload: { n: 1 } });
    await Promise.all(
      Array.from({ length: 50 }, (_, n) => first.post("/api/tasks", { name: "t", payload: { n } })),
    );

    // What an operator sees while all is well.
    const leader = await cluster.leader();
    const view = await leader.json<ClusterView & { alarms: unknown[] }>("/api/cluster");
    expect(view.alarms).toEqual([]);
    const metrics = await (await leader.fetch("/metrics")).text();
    for (const pattern of [
      /^flotilla_raft_elections_total\{reason="timeout"\} \d+$/m,
      /^flotilla_log_fsync_seconds_count [1-9]\d*$/m,
      /^flotilla_commit_seconds_count [1-9]\d*$/m,
      /^flotilla_raft_peer_match_index\{peer="n\d"\} [1-9]\d*$/m,
      /^flotilla_raft_peer_round_trip_seconds\{peer="n\d"\} [\d.e-]+$/m,
      /^flotilla_disk_free_bytes [1-9]\d*$/m,
      /^flotilla_alarm\{kind="inconsistent"\} 0$/m,
    ])
      expect(metrics).toMatch(pattern);

    await odd.kill("SIGTERM");
    const folder = join(cluster.folder, odd.id);
    const db = new Database(join(folder, readFileSync(join(folder, "CURRENT"), "utf8").trim()));
    const rot = `UPDATE tasks SET payload = '{"n":2}' WHERE id = ?`;
    expect(db.run(rot, [id]).changes).toBe(1);
    db.close();
    await odd.start();

    const found = await eventually(
      "the alarm",
      async () => {
        const health = (await (await odd.fetch("/health")).json()) as HealthJson;
        return health.reason?.includes("is wrong") === true ? health : null;
      },
      60_000,
    );
    expect(found.reason).toContain(`the state of ${odd.id} is wrong`);
    expect(found.reason).toContain("has other rows on its disk");
    for (const path of [`/api/tasks/${id}`, `/api/tasks/${id}?consistency=stale`]) {
      const response = await odd.fetch(path);
      expect(response.status).toBe(503);
      expect(await response.json()).toMatchObject({ code: "inconsistent" });
    }
    await eventually("the others' alarm", async () => {
      const { status, alarms } = await first.json<HealthJson>("/health");
      return status === "healthy" && alarms.some(({ member }) => member === odd.id);
    });
    expect(await (await first.fetch("/metrics")).text()).toContain(
      'flotilla_alarm{kind="inconsistent"} 1',
    );
    expect(await (await first.fetch("/")).text()).toContain(`the state of ${odd.id} is wrong`);
    expect((await first.json<TaskJson>(`/api/tasks/${id}`)).payload).toEqual({ n: 1 });

    // A restart does not make it right.
    await odd.kill("SIGKILL");
    await odd.start();
    expect((await odd.fetch("/health")).status).toBe(503);
    expect((await odd.fetch(`/api/tasks/${id}?consistency=stale`)).status).toBe(503);
  } finally {
    await cluster.stop();
  }
}, 120_000);
