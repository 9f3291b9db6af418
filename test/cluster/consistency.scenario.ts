/** A row that rots on one member's disk, on real processes and real files. */
import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type ClusterView, eventually, type TaskJson } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

interface HealthJson {
  status: string;
  reason?: string;
  alarms: { kind: string; member: string | null; sentence: string }[];
}

/** Nobody runs it. */
const LATER = { name: "t", run_at: "2099-01-01T00:00:00Z" };

scenario(
  "a row that changed on one member's disk is found, and that member takes the state of the others",
  async () => {
    await withCluster({ args: ["--concurrency", "1"] }, async (cluster) => {
      const [odd] = await cluster.followers();
      if (odd === undefined) throw new Error("no follower");
      const first = cluster.members.find((member) => member !== odd);
      if (first === undefined) throw new Error("no member");
      const { id } = await first.post<TaskJson>("/api/tasks", { ...LATER, payload: { n: 1 } });
      await Promise.all(
        Array.from({ length: 50 }, (_, n) =>
          first.post("/api/tasks", { ...LATER, payload: { n } }),
        ),
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

      // One task runs on each member, for longer than this test.
      const running = await Promise.all(
        cluster.members.map(() =>
          first.post<TaskJson>("/api/tasks", { name: "sleep", payload: { ms: 600_000 } }),
        ),
      );
      const workerOf = async (task: TaskJson): Promise<string> =>
        (await first.json<TaskJson>(`/api/tasks/${task.id}`)).lease?.worker ?? "";
      await eventually("all of them to run", async () => {
        const workers = await Promise.all(running.map(workerOf));
        return new Set(workers).size === 3 && !workers.includes("");
      });
      const workers = await Promise.all(running.map(workerOf));
      const aborted = running[workers.findIndex((worker) => worker.startsWith(`${odd.id}/`))];

      const folder = join(cluster.folder, odd.id);
      const wrong = readFileSync(join(folder, "CURRENT"), "utf8").trim();
      const db = new Database(join(folder, wrong));
      db.run("PRAGMA busy_timeout = 5000");
      const rot = `UPDATE tasks SET payload = '{"n":2}' WHERE id = ?`;
      await eventually("the row on the disk", async () => db.run(rot, [id]).changes === 1);
      db.close();

      await eventually(
        "the others' alarm",
        async () => {
          const { status, alarms } = await first.json<HealthJson>("/health");
          const found = alarms.find(({ member }) => member === odd.id);
          expect(found?.sentence ?? "has other rows on its disk").toContain(
            "has other rows on its disk",
          );
          return status === "healthy" && found !== undefined;
        },
        60_000,
      );
      expect(await (await first.fetch("/metrics")).text()).toContain(
        'flotilla_alarm{kind="inconsistent"} 1',
      );
      expect(await (await first.fetch("/")).text()).toContain(`the state of ${odd.id} is wrong`);

      // It mends itself: with the state of the others, on its own log.
      await eventually(
        "the member to answer again",
        async () => {
          const current = readFileSync(join(folder, "CURRENT"), "utf8").trim();
          return current !== wrong && (await odd.fetch("/health/ready")).status === 200;
        },
        60_000,
      );
      expect(odd.output).toContain(`the state of ${odd.id} is wrong`);
      expect(odd.output).toContain("the state that was wrong is replaced");
      for (const consistency of ["stale", "linearizable"]) {
        const task = await odd.json<TaskJson>(`/api/tasks/${id}?consistency=${consistency}`);
        expect(task.payload).toEqual({ n: 1 });
      }
      const kept = readdirSync(folder).filter(
        (name) => name.startsWith("wrong-") && name.endsWith(".db"),
      );
      expect(kept).toEqual([`wrong-${wrong}`]);

      // What ran there was handed back, at no cost.
      await eventually("the task to run again", async () => {
        const task = await first.json<TaskJson>(`/api/tasks/${aborted?.id}`);
        expect([task.retries, task.crashes]).toEqual([0, 0]);
        return task.attempt > 1 && task.status === "Running";
      });
      await odd.kill("SIGKILL");
      await odd.start();
      // However busy the machine is: a read without a quorum in its time limit is no answer.
      await eventually("the member to answer", async () => {
        const answer = await odd.fetch(`/api/tasks/${id}`);
        if (answer.status === 503) return false;
        expect(((await answer.json()) as TaskJson).payload).toEqual({ n: 1 });
        return answer.ok;
      });
    });
  },
);
