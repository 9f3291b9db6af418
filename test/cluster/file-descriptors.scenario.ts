/** Clients that hold every file descriptor a member may have: what it has open must do. */
import { expect } from "bun:test";
import { readdirSync } from "node:fs";
import type { Socket } from "bun";
import { HttpConnection } from "../bench/http-connection.ts";
import { eventually, type TaskJson } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

const LIMIT = 200;
/** Within this time it looks at its memory and its disk, checks its rows and commits its state. */
const HELD_MS = 4_000;

const hasPrlimit = Bun.which("prlimit") !== null;

scenario(
  `a member whose file descriptors are all taken goes on serving whoever is connected, and then everybody${hasPrlimit ? "" : " (needs prlimit, of util-linux)"}`,
  async () => {
    await withCluster({ size: 1, args: ["--concurrency", "2"] }, async (cluster) => {
      const member = cluster.member(0);
      const pid = member.process?.pid ?? 0;
      const descriptors = (): number => readdirSync(`/proc/${pid}/fd`).length;
      const kept = await HttpConnection.open(member.url);
      const inAnHour = new Date(Date.now() + 3_600_000).toISOString();
      const { id } = await member.post<TaskJson>("/api/tasks", { name: "echo", run_at: inAnHour });
      await Bun.$`prlimit --pid ${pid} --nofile=${LIMIT}:${LIMIT}`;
      const flood: Socket[] = [];
      let submitted = 0;
      try {
        await eventually("no descriptor to be left", async () => {
          for (let i = 0; i < LIMIT; i++)
            flood.push(
              await Bun.connect({
                hostname: "127.0.0.1",
                port: member.port,
                socket: { data() {}, error() {} },
              }),
            );
          return descriptors() >= LIMIT;
        });
        const answers = new Set<string>();
        const until = performance.now() + HELD_MS;
        while (performance.now() < until) {
          const body = JSON.stringify({ name: "echo", payload: submitted++ });
          answers.add(`POST ${(await kept.post("/api/tasks", body)).status}`);
          for (const path of [`/api/tasks/${id}`, "/api/tasks?name=echo", "/metrics", "/health"])
            answers.add(`${path} ${(await kept.get(path)).status}`);
          await Bun.sleep(20);
        }
        expect([...answers]).toEqual([
          "POST 201",
          `/api/tasks/${id} 200`,
          // Its thread had not been started.
          "/api/tasks?name=echo 429",
          "/metrics 200",
          "/health 200",
        ]);
        expect(descriptors()).toBe(LIMIT);
      } finally {
        for (const socket of flood) socket.terminate();
      }
      await eventually("all that was acknowledged to be done", async () => {
        const { stats } = await member.json<{ stats: Record<string, number> }>("/api/stats");
        return stats.Completed === submitted;
      });
      expect((await member.fetch("/api/tasks?name=echo")).status).toBe(200);
    });
  },
  { skip: !hasPrlimit },
);
