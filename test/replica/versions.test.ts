import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { PeerHello } from "../../src/replica/ports.ts";
import { versionRefusal } from "../../src/replica/versions.ts";
import { TaskCluster, type TaskNode } from "./task-cluster.ts";

const OLD = { oldest: 1, newest: 1 };
const NEW = { oldest: 1, newest: 2 };

const inForce = (nodes: readonly TaskNode[]): (number | undefined)[] =>
  nodes.map(({ machine }) => machine?.machineVersion());

/** Three members of the old build, not started. */
function oldCluster(seed: number): TaskCluster {
  const cluster = new TaskCluster(seed, 3);
  for (const node of cluster.nodes) node.versions = OLD;
  return cluster;
}

/** Stops it and starts the other build on its files. */
async function upgrade(cluster: TaskCluster, node: TaskNode, versions: typeof OLD): Promise<void> {
  node.kill();
  await cluster.run(1_000);
  node.versions = versions;
  await node.start();
  await cluster.run(3_000, () => cluster.leader !== null);
}

describe("machine versions", () => {
  test("a cluster of several builds is founded on what all of them apply", async () => {
    const cluster = oldCluster(1);
    cluster.node(0).versions = NEW;
    cluster.node(2).versions = NEW;
    await cluster.start();
    await cluster.submit(cluster.node(2));
    await cluster.run(30_000);
    expect(inForce(cluster.nodes)).toEqual([1, 1, 1]);
    expect(cluster.leader?.replica?.status().machineVersions.supported).toBe(1);
  });

  test("a cluster of new builds alone begins with the newest version", async () => {
    const cluster = new TaskCluster(2, 3);
    for (const node of cluster.nodes) node.versions = NEW;
    await cluster.start();
    await cluster.run(500);
    expect(inForce(cluster.nodes)).toEqual([2, 2, 2]);
  });

  test("a rolling upgrade raises it once the last member runs the new build, and loses nothing", async () => {
    const cluster = oldCluster(3);
    await cluster.start();
    const ids = [await cluster.submit(cluster.node(0))];
    for (const node of cluster.nodes) {
      expect(inForce(cluster.nodes)).toEqual([1, 1, 1]);
      await upgrade(cluster, node, NEW);
      ids.push(await cluster.submit(cluster.node(0)));
      await cluster.run(15_000);
    }
    expect(inForce(cluster.nodes)).toEqual([2, 2, 2]);
    ids.push(await cluster.submit(cluster.node(1)));
    await cluster.run(1_000);
    for (const { machine, fatal } of cluster.nodes) {
      expect(fatal).toBeNull();
      for (const id of ids) expect(machine?.task(id)?.status).toBe("Pending");
    }
    const chains = cluster.nodes.map(({ machine }) => machine?.chainAt(machine.applied().index));
    expect(new Set(chains).size).toBe(1);
  });

  test("a setting of the newer version is refused until it is in force, whoever is asked, and then counts at once", async () => {
    const cluster = oldCluster(7);
    await cluster.start();
    const context = { principal: "p", idempotency: null };
    const change = { log_tail: { max_bytes: 2_000_000 } };
    const ask = async (node: TaskNode): Promise<string> => {
      const { queue } = node;
      if (queue === null) throw new Error(`${node.id} does not run`);
      let said: string | null = null;
      void queue.updateSettings(change, context).then(
        (settings) => (said = JSON.stringify(settings.log_tail)),
        (error: unknown) => (said = String(error)),
      );
      await cluster.run(10_000, () => said !== null);
      return said ?? "no answer";
    };
    for (const node of cluster.nodes) {
      await upgrade(cluster, node, NEW);
      for (const asked of cluster.nodes.slice(0, 1 + cluster.nodes.indexOf(node)))
        expect(await ask(asked)).toContain("log_tail is a setting from machine version 2 on");
    }
    await cluster.run(15_000);
    expect(inForce(cluster.nodes)).toEqual([2, 2, 2]);
    expect(await ask(cluster.node(1))).toBe(
      '{"max_bytes":2000000,"max_ms":86400000,"young_bytes":33554432,"young_ms":60000}',
    );
    await cluster.run(1_000);
    const settings = cluster.nodes.map(({ machine }) => JSON.stringify(machine?.settings()));
    expect(new Set(settings).size).toBe(1);
    const chains = cluster.nodes.map(({ machine }) => machine?.chainAt(machine.applied().index));
    expect(new Set(chains).size).toBe(1);
  });

  test("a member that is down keeps it from being raised", async () => {
    const cluster = oldCluster(4);
    await cluster.start();
    await upgrade(cluster, cluster.node(0), NEW);
    await upgrade(cluster, cluster.node(1), NEW);
    cluster.node(2).kill();
    await cluster.run(40_000);
    expect(inForce(cluster.nodes.slice(0, 2))).toEqual([1, 1]);
    cluster.node(2).versions = NEW;
    await cluster.node(2).start();
    await cluster.run(20_000);
    expect(inForce(cluster.nodes)).toEqual([2, 2, 2]);
  });

  test("until then every member may go back, and afterwards none: it does not start, in words", async () => {
    const cluster = oldCluster(5);
    await cluster.start();
    await upgrade(cluster, cluster.node(0), NEW);
    await upgrade(cluster, cluster.node(0), OLD);
    expect(cluster.node(0).fatal).toBeNull();
    for (const node of cluster.nodes) await upgrade(cluster, node, NEW);
    await cluster.run(20_000);
    expect(inForce(cluster.nodes)).toEqual([2, 2, 2]);
    const said = await upgrade(cluster, cluster.node(1), OLD).then(() => "started", String);
    expect(said).toContain(
      "this build is too old for this data folder: its cluster runs machine version 2, this build applies 1 at most: start the build that ran here before, or a newer one",
    );
  });

  test("an old build whose state is behind is let in by nobody, and applies nothing", async () => {
    const cluster = new TaskCluster(6, 3);
    for (const node of cluster.nodes) node.versions = node === cluster.node(1) ? OLD : NEW;
    await cluster.start();
    await cluster.submit(cluster.node(2));
    // The state of a moment before the raise: it is as durable as the newest checkpoint, no more.
    const before = cluster.node(2).db.serialize();
    await upgrade(cluster, cluster.node(1), NEW);
    await cluster.run(15_000, () => inForce(cluster.nodes).every((version) => version === 2));
    const behind = cluster.node(2);
    behind.kill();
    behind.db = Database.deserialize(before);
    behind.versions = OLD;
    await behind.start();
    await cluster.run(3_000);
    expect(behind.replica?.status()).toMatchObject({ leader: null });
    expect(JSON.stringify(behind.queue?.health())).toContain("the build of n3 is too old");
    expect(behind.machine?.machineVersion()).toBe(1);
  });
});

describe("who may take part", () => {
  const hello = (oldest: number, newest: number): PeerHello => ({
    id: asNodeId("n3"),
    incarnation: "i",
    boot: 1,
    clusterId: "c",
    lastIndex: asIndex(9),
    lastTerm: asTerm(1),
    peerIds: [],
    advertise: "http://n3",
    machineVersion: newest,
    machineVersionOldest: oldest,
    bootstrap: null,
  });

  test("is whose build applies what is in force; the others are told which build to start", () => {
    expect(versionRefusal(hello(1, 2), 1)).toBeNull();
    expect(versionRefusal(hello(1, 2), 2)).toBeNull();
    expect(versionRefusal(hello(1, 1), 2)).toBe(
      "the build of n3 is too old: it applies machine version 1 at most, the cluster runs 2: start n3 with the build of the other members",
    );
    expect(versionRefusal(hello(2, 3), 1)).toBe(
      "the build of n3 is too new: it applies machine version 2 and later, the cluster still runs 1: start n3 with the build of the other members, upgrade all of them to one that applies both, and try again",
    );
  });
});
