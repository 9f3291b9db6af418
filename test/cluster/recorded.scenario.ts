/**
 * Data folders that an earlier build wrote, and that build itself, with the present one.
 *
 * The folders lie in `fixtures/`; `bun run test/cluster/record-fixture.ts` makes them. The upgrade under load takes most of a
 * minute: `bun run test:versions`.
 */
import { expect } from "bun:test";
import { join } from "node:path";
import { fixtureAbout, gitHas, keptOf, unpackFixture } from "./fixture.ts";
import { type ClusterView, eventually, RealCluster, ROOT, type TaskJson } from "./harness.ts";
import { scenario } from "./scenario.ts";

const about = await fixtureAbout();
const asked = process.env["MIXED_VERSIONS"] === "1";
const isThere = about !== null && (await gitHas(about.commit));

scenario(
  "members of this build start on folders that an earlier one wrote, and have every task of them",
  async () => {
    const cluster = await RealCluster.create({ args: ["--concurrency", "0"] });
    try {
      const tasks = await unpackFixture(cluster.folder);
      expect(new Set(tasks.map(({ status }) => status)).size).toBe(5);
      await Promise.all(cluster.members.map((member) => member.start()));
      const leader = await cluster.leader();
      const view = await leader.json<ClusterView>("/api/cluster");
      expect(view.cluster_id).toBe(about?.clusterId ?? "");
      expect(view.term).toBeGreaterThan(about?.term ?? 0);
      const fresh = await leader.post<TaskJson>("/api/tasks", { name: "fresh" });
      for (const member of cluster.members) {
        await eventually("the newest task", async () => {
          return (await member.fetch(`/api/tasks/${fresh.id}?consistency=stale`)).ok;
        });
        const found = await member.json<TaskJson[]>("/api/tasks?limit=1000&consistency=stale");
        const now = found.toReversed();
        expect(now.map(({ id }) => id)).toEqual([...tasks.map(({ id }) => id), fresh.id]);
        for (const [i, task] of tasks.entries()) expect(now[i]).toMatchObject(keptOf(task));
      }
    } finally {
      await cluster.stop();
    }
  },
  { skip: about === null },
);

scenario(
  isThere || about === null
    ? "the build that wrote them is upgraded member by member under load (MIXED_VERSIONS=1 runs it)"
    : `the build that wrote them cannot be run: git does not have ${about.commit}, as in a shallow clone`,
  async () => {
    const script = join(import.meta.dir, "mixed.ts");
    const child = Bun.spawn(["bun", script, "--fixture", "--seconds", "2"], {
      cwd: ROOT,
      stdout: "inherit",
      stderr: "inherit",
    });
    expect(await child.exited).toBe(0);
  },
  { skip: !asked || !isThere },
);
