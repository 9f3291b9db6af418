import { expect } from "bun:test";
import { join } from "node:path";
import { HttpConnection } from "../bench/http-connection.ts";
import { eventually, freePorts, type TaskJson } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

const ROOT = join(import.meta.dir, "..", "..");

scenario(
  "a folder that founded a cluster of one is refused with --peers for others, and stays as it was",
  async () => {
    await withCluster({ size: 1 }, async (cluster) => {
      const member = cluster.member(0);
      const { id } = await member.post<TaskJson>("/api/tasks", { name: "echo", payload: 1 });
      await member.kill("SIGTERM");
      const [two] = freePorts(1);
      const peers = `n1=${member.url},n2=http://127.0.0.1:${two}`;
      const refused = Bun.spawn(["bun", "run", "src/node.ts", ...member.args, "--peers", peers], {
        cwd: ROOT,
        stdout: "pipe",
        stderr: "pipe",
      });
      expect(await refused.exited).toBe(2);
      const said = await new Response(refused.stderr).text();
      expect(said).toContain("--peers names n2");
      expect(said).toContain("cluster of n1 alone");
      await member.start();
      const status = await eventually("the task", async () => {
        const response = await member.fetch(`/api/tasks/${id}?wait=5`);
        return response.ok ? ((await response.json()) as TaskJson).status : null;
      });
      expect(status).toBe("Completed");
    });
  },
);

/** Longer than the runtime keeps a silent connection by itself: it looks every four seconds whether one is over its ten. */
const SILENT_MS = 16_000;

scenario(
  "a connection that a client keeps in its pool is there when it asks again after a while",
  async () => {
    await withCluster({ size: 1 }, async (cluster) => {
      const kept = await HttpConnection.open(cluster.member(0).url);
      const submit = (): Promise<{ status: number }> =>
        kept.post("/api/tasks", JSON.stringify({ name: "echo" }));
      expect((await submit()).status).toBe(201);
      await Bun.sleep(SILENT_MS);
      expect(kept.isOpen).toBe(true);
      expect((await submit()).status).toBe(201);
    });
  },
);
