import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { asIndex, asNodeId, type NodeId } from "../../src/raft/types.ts";
import { comparable, judge, parseVerdict, type Word } from "../../src/replica/words.ts";
import { StateDamage } from "../../src/replica/ports.ts";
import { QueueError } from "../../src/queue/service.ts";
import { TaskCluster, type TaskNode } from "./task-cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(60_000);

const ids = (...names: readonly string[]): NodeId[] => names.map((name) => asNodeId(name));
const values = (given: Readonly<Record<string, string>>): Map<NodeId, string> =>
  new Map(Object.entries(given).map(([id, value]) => [asNodeId(id), value]));

/** What each member says is wrong, as "kind member". */
function alarms(node: TaskNode): string[] {
  return (node.replica?.status().alarms ?? []).map(({ kind, member }) => `${kind} ${member}`);
}

async function read(node: TaskNode, id: string, consistency: "stale" | "linearizable") {
  try {
    const answer = await Promise.race([
      node.queue?.get(id, consistency),
      node.cluster.run(6_000).then(() => "late"),
    ]);
    return answer === "late" ? "late" : "answered";
  } catch (error) {
    return error instanceof QueueError ? error.reason : String(error);
  }
}

/** Three members, of which one follower is known to be wrong, and is not mended for want of a copy. */
async function oneCondemned(cluster: TaskCluster) {
  await cluster.start();
  const id = await cluster.submit(cluster.node(0));
  await cluster.run(2_000);
  const { leader } = cluster;
  const [odd, sound] = cluster.nodes.filter((node) => node !== leader);
  if (leader === null || odd === undefined || sound === undefined) throw new Error("no leader");
  for (const node of cluster.nodes) node.roomForCopies = false;
  rot(odd, "payload = '\"rotten\"'", id);
  expect(await cluster.run(8_000, () => odd.condemned !== null)).toBe(true);
  await cluster.run(500);
  expect(cluster.leader).toBe(leader);
  return { odd, leader, sound, id };
}

/** "done", or why not. */
async function call(
  cluster: TaskCluster,
  at: TaskNode,
  method: string,
  body: unknown,
): Promise<string> {
  let answer = "";
  at.replica?.call(method, body, 8_000).then(
    () => (answer = "done"),
    (error: unknown) => (answer = error instanceof Error ? error.message : String(error)),
  );
  await cluster.run(10_000, () => answer !== "");
  return answer;
}

function removal(cluster: TaskCluster, at: TaskNode, { id }: TaskNode): Promise<string> {
  return call(cluster, at, "members.remove", { id });
}

function isolate({ network, nodes }: TaskCluster, node: TaskNode, on: boolean): void {
  for (const other of nodes) {
    if (other === node) continue;
    network.setCut(node.id, other.id, on);
    network.setCut(other.id, node.id, on);
  }
}

/** Changes the task's row behind the member's back. */
function rot(node: TaskNode, change: string, id: string): void {
  expect(node.db.run(`UPDATE tasks SET ${change} WHERE id = ?`, [id]).changes).toBe(1);
}

describe("words are judged", () => {
  const membership = { voters: ids("n1", "n2", "n3"), outgoing: ids() };

  test("by a majority of all voters, whoever else gave one", () => {
    const cases: [Record<string, string>, string[], boolean][] = [
      [{ n1: "a", n2: "a", n3: "a" }, [], false],
      [{ n1: "a", n2: "a", n3: "b" }, ["n3"], false],
      [{ n1: "a", n2: "b", n3: "b" }, ["n1"], false],
      [{ n1: "a", n2: "b", n3: "c" }, [], true],
      // One of three was not heard: no majority has any value.
      [{ n1: "a", n2: "b" }, [], true],
      [{ n1: "a", n2: "a" }, [], false],
      [{ n1: "a" }, [], false],
      [{}, [], false],
      // A learner is compared, and does not count.
      [{ n1: "a", n2: "a", n3: "a", n4: "b" }, ["n4"], false],
      [{ n1: "a", n4: "b", n5: "b" }, [], true],
    ];
    for (const [given, minority, split] of cases)
      expect(judge(values(given), membership)).toEqual({ minority: ids(...minority), split });
  });

  test("by both halves of a joint membership: who alone stays cannot call those who leave wrong", () => {
    const cases: [string[], string[], Record<string, string>, string[], boolean][] = [
      [["n2"], ["n1", "n2"], { n1: "a", n2: "b" }, [], true],
      [["n1", "n2", "n3"], ["n3"], { n1: "a", n2: "a", n3: "b" }, [], true],
      [["n1", "n2"], ["n1", "n2", "n3"], { n1: "a", n2: "a", n3: "b" }, ["n3"], false],
      [["n1", "n2", "n3"], ["n1", "n2"], { n1: "a", n2: "a", n3: "b" }, ["n3"], false],
    ];
    for (const [voters, outgoing, given, minority, split] of cases)
      expect(judge(values(given), { voters: ids(...voters), outgoing: ids(...outgoing) })).toEqual({
        minority: ids(...minority),
        split,
      });
  });

  test("each part among those who gave it", () => {
    const word = (chain: string | null, digest: string | null): Word => ({
      round: 1,
      machineVersion: 1,
      chain,
      digest,
      next: null,
      condemned: null,
      admits: [],
    });
    const words = new Map([
      [asNodeId("n1"), word("c", "d")],
      [asNodeId("n2"), word("c", null)],
      [asNodeId("n3"), word(null, "d")],
    ]);
    expect([...comparable(words, "chain").keys()]).toEqual(ids("n1", "n2"));
    expect([...comparable(words, "digest").keys()]).toEqual(ids("n1", "n3"));
  });

  test("a word that was said behind the entry that raised the machine version is no other value for that", () => {
    const word = (machineVersion: number): Word => ({
      round: 1,
      machineVersion,
      chain: "c",
      digest: "d",
      next: null,
      condemned: null,
      admits: [],
    });
    const words = ["n1", "n2", "n3"].map((id, i) => [asNodeId(id), word(i === 1 ? 2 : 1)] as const);
    for (const part of ["chain", "digest"] as const)
      expect(judge(comparable(words, part), membership)).toEqual({ minority: [], split: false });
  });

  test("nonsense is no verdict", () => {
    for (const body of [null, 1, "x", {}, { index: 1 }, { index: 1, words: [[1, {}]] }])
      expect(parseVerdict(body)).toBeNull();
    expect(parseVerdict({ index: 7, words: [] })).toEqual({ index: asIndex(7), words: [] });
  });
});

describe("three members", () => {
  test("with one state raise no alarm, and all their rows are read again and again", async () => {
    const cluster = new TaskCluster(1, 3);
    await cluster.start();
    for (let i = 0; i < 20; i++) await cluster.submit(cluster.node(i % 3));
    await cluster.run(20_000);
    for (const node of cluster.nodes) {
      expect(alarms(node)).toEqual([]);
      expect(node.replica?.consistencyChecked().rows).toBeGreaterThan(60);
    }
    expect(cluster.leader?.replica?.consistencyChecked().passes).toBeGreaterThan(2);
  });

  test("an idle cluster's log does not grow by it", async () => {
    const cluster = new TaskCluster(2, 3);
    await cluster.start();
    await cluster.run(5_000);
    const before = cluster.leader?.replica?.status().lastIndex;
    await cluster.run(60_000);
    expect(cluster.leader?.replica?.status().lastIndex).toBe(before ?? asIndex(0));
  });

  test.each([["a follower"], ["the leader"]])(
    "%s that applies an entry differently is found, stops answering, and does not lead",
    async (who) => {
      const cluster = new TaskCluster(3, 3);
      await cluster.start();
      const { leader } = cluster;
      if (leader === null) throw new Error("no leader");
      const id = await cluster.submit(leader);
      const follower = cluster.nodes.find((node) => node !== leader);
      const odd = who === "the leader" ? leader : follower;
      const sound = cluster.nodes.filter((node) => node !== odd);
      const [first] = sound;
      if (odd === undefined || first === undefined) throw new Error("no member");
      // A defect of this member's build: it sees another time in one entry.
      odd.mutate = (entry) =>
        entry.requests.length === 0 ? entry : { ...entry, now: entry.now + 1 };
      for (const node of cluster.nodes) node.roomForCopies = false;
      await cluster.submit(first);
      odd.mutate = (entry) => entry;
      expect(await cluster.run(5_000, () => odd.condemned !== null)).toBe(true);
      expect(odd.condemned).toContain(`the state of ${odd.id} is wrong`);
      expect(odd.condemned).toContain("applied the log differently");
      await cluster.run(5_000);

      for (const consistency of ["stale", "linearizable"] as const)
        expect(await read(odd, id, consistency)).toBe("inconsistent");
      const refused = await cluster.submit(odd).catch((error: unknown) => String(error));
      expect(refused).toContain("is wrong");
      expect(odd.queue?.health()).toMatchObject({ status: "unhealthy", reason: odd.condemned });
      expect(cluster.leader).not.toBe(odd);
      for (const node of sound) {
        expect(alarms(node)).toEqual([`inconsistent ${odd.id}`]);
        expect(node.queue?.health().status).toBe("healthy");
        expect(await read(node, id, "stale")).toBe("answered");
        await cluster.submit(node);
      }

      // Restarted it knows at once, and an election cannot make it lead.
      odd.kill();
      await cluster.run(1_000);
      await odd.start();
      expect(odd.queue?.health().status).toBe("unhealthy");
      const last = cluster.leader;
      last?.kill();
      await cluster.run(10_000);
      expect(odd.leads).toBe(false);

      // A snapshot of the others takes the place of its state, and of that alone.
      await last?.start();
      for (const node of cluster.nodes) node.roomForCopies = true;
      await cluster.submit(first);
      expect(await cluster.run(30_000, () => odd.replica?.condemned() === null)).toBe(true);
      expect(odd.disk.entries[0]?.index).toBe(asIndex(1));
      await cluster.run(20_000);
      expect(cluster.nodes.map(alarms)).toEqual([[], [], []]);
      for (const consistency of ["stale", "linearizable"] as const)
        expect(await read(odd, id, consistency)).toBe("answered");
      await cluster.submit(odd);
      expect(odd.warnings.join()).toContain("the state that was wrong is replaced");
      first.kill();
      await cluster.submit(odd);
    },
  );

  test("a member whose wrong state cannot even apply what comes is mended all the same", async () => {
    const cluster = new TaskCluster(8, 3);
    await cluster.start();
    const id = await cluster.submit(cluster.node(0));
    await cluster.run(2_000);
    const odd = cluster.nodes.find((node) => !node.leads);
    const first = cluster.nodes.find((node) => node !== odd);
    if (odd === undefined || first === undefined) throw new Error("no follower");
    for (const node of cluster.nodes) node.roomForCopies = false;
    rot(odd, "payload = '\"rotten\"'", id);
    expect(await cluster.run(8_000, () => odd.condemned !== null)).toBe(true);
    odd.mutate = () => {
      throw new Error("a row that must be there is not");
    };
    for (let i = 0; i < 5; i++) await cluster.submit(first);
    await cluster.run(5_000);
    expect(odd.fatal).toBeNull();
    // It says what it is, though it cannot say how its state is.
    expect(alarms(cluster.leader ?? odd)).toEqual([`inconsistent ${odd.id}`]);
    odd.mutate = (entry) => entry;
    for (const node of cluster.nodes) node.roomForCopies = true;
    expect(await cluster.run(30_000, () => odd.replica?.condemned() === null)).toBe(true);
    // The core was told of what the new state holds, though nothing was applied since: the log may be forgotten.
    const applied = first.replica?.status().applied ?? asIndex(0);
    const compacted = odd.replica?.compact(applied);
    await cluster.run(1_000);
    expect(odd.fatal).toBeNull();
    expect(await compacted).toBe(applied);
    await cluster.run(20_000);
    expect(cluster.nodes.map(alarms)).toEqual([[], [], []]);
    expect(await read(odd, id, "stale")).toBe("answered");
    expect((await odd.queue?.get(id, "stale"))?.task).toEqual(
      (await cluster.leader?.queue?.get(id, "stale"))?.task ?? null,
    );
  });

  test("a leader whose state is wrong hands over to one whose state is right, and both that were wrong are mended", async () => {
    const cluster = new TaskCluster(11, 5);
    await cluster.start();
    const id = await cluster.submit(cluster.node(0));
    await cluster.run(2_000);
    // Logs are equally long: the first of the others would be taken.
    const other = cluster.nodes.find((node) => !node.leads);
    const wrong = [cluster.leader, other].filter((node) => node !== null && node !== undefined);
    expect(wrong).toHaveLength(2);
    for (const node of wrong) rot(node, "payload = '\"rotten\"'", id);
    const isMended = (node: TaskNode): boolean =>
      node.warnings.join().includes("the state that was wrong is replaced") &&
      node.replica?.condemned() === null;
    expect(await cluster.run(20_000, () => wrong.every(isMended))).toBe(true);
    for (const node of wrong) expect(node.warnings.join()).not.toContain("found wrong again");
  });

  test("a member that is wrong, and cannot be mended, lets another one lead when the leader is heard of no more", async () => {
    const cluster = new TaskCluster(12, 3);
    const { odd, leader, sound } = await oneCondemned(cluster);
    // Its machine has lost its power: no connection is closed.
    isolate(cluster, leader, true);
    expect(await cluster.run(10_000, () => sound.leads)).toBe(true);
    expect(odd.leads).toBe(false);
  });

  test("a member that is wrong leads where nobody else can, until another one holds what its log holds", async () => {
    const cluster = new TaskCluster(13, 3);
    const { odd, leader, sound, id } = await oneCondemned(cluster);
    isolate(cluster, sound, true);
    const written = await cluster.submit(leader);
    await cluster.run(500);
    leader.kill();
    isolate(cluster, sound, false);
    for (const node of cluster.nodes) node.roomForCopies = true;
    expect(await cluster.run(30_000, () => sound.leads)).toBe(true);
    expect(await cluster.run(30_000, () => odd.replica?.condemned() === null)).toBe(true);
    for (const node of [odd, sound])
      for (const task of [id, written])
        expect(await read(node, task, "linearizable")).toBe("answered");
  });

  test("the last member whose state is right is not removed: who is wrong could take no other state any more", async () => {
    const cluster = new TaskCluster(14, 3);
    const { odd, leader, sound, id } = await oneCondemned(cluster);
    const remove = (member: TaskNode): Promise<string> => removal(cluster, leader, member);
    expect(await remove(sound)).toBe("done");
    const refused = await remove(leader);
    expect(refused).toContain(`Removing ${leader.id} would stop the cluster`);
    expect(refused).toContain("a state that is right");
    // Once it is mended it is one of them.
    for (const node of cluster.nodes) node.roomForCopies = true;
    expect(await cluster.run(30_000, () => odd.replica?.condemned() === null)).toBe(true);
    await cluster.run(16_000);
    expect(await remove(leader)).toBe("done");
    expect(await cluster.run(10_000, () => odd.leads)).toBe(true);
    expect(await read(odd, id, "linearizable")).toBe("answered");
  });

  test("a member that is wrong and was away for long is known to be wrong still when it is back", async () => {
    const cluster = new TaskCluster(16, 3);
    const { odd, leader, sound } = await oneCondemned(cluster);
    isolate(cluster, odd, true);
    await cluster.run(20_000);
    // Nobody tells of it any more, and it gives no word: what it was found to be does not change by that.
    expect(alarms(leader)).toEqual([]);
    isolate(cluster, odd, false);
    const back = await cluster.run(4_000, () => {
      const seen = leader.replica?.status().peers.find(({ id }) => id === odd.id);
      return seen?.connected === true;
    });
    expect(back).toBe(true);
    expect(leader.leads).toBe(true);
    expect(await removal(cluster, leader, sound)).toBe("done");
    expect(await removal(cluster, leader, leader)).toContain("a state that is right");
  });

  test("a leader that has just begun, and knows of nobody who is wrong yet, asks before it removes itself", async () => {
    const cluster = new TaskCluster(15, 3);
    const { odd, leader, sound } = await oneCondemned(cluster);
    expect(await removal(cluster, leader, sound)).toBe("done");
    // Waits for its process, and gives no word: a round takes as long as it may.
    const late = { id: "n9", url: "http://n9" };
    expect(await call(cluster, leader, "members.add", late)).toBe("done");
    leader.kill();
    await leader.start();
    expect(await cluster.run(10_000, () => leader.leads)).toBe(true);
    expect(alarms(leader)).toEqual([]);
    expect(await removal(cluster, leader, leader)).toContain("a state that is right");
    expect(alarms(leader)).toEqual([`inconsistent ${odd.id}`]);
  });

  test("a member that makes the same mistake again is mended again, later each time", async () => {
    const cluster = new TaskCluster(9, 3);
    await cluster.start();
    const odd = cluster.nodes.find((node) => !node.leads);
    const first = cluster.nodes.find((node) => node !== odd);
    if (odd === undefined || first === undefined) throw new Error("no follower");
    odd.mutate = (entry) =>
      entry.requests.length === 0 ? entry : { ...entry, now: entry.now + 1 };
    const mends = (): number =>
      odd.warnings.filter((line) => line.includes("the state that was wrong is replaced")).length;
    const mendedWithin = async (ms: number): Promise<boolean> => {
      const before = mends();
      await cluster.submit(first);
      return cluster.run(ms, () => mends() > before);
    };
    expect(await mendedWithin(10_000)).toBe(true);
    expect(await mendedWithin(40_000)).toBe(false);
    expect(await mendedWithin(40_000)).toBe(true);
    expect(await mendedWithin(90_000)).toBe(false);
    expect(odd.warnings.join()).toContain("found wrong again");
  });

  test("a row that changed on one member's disk is found within seconds, and named after its owner", async () => {
    const cluster = new TaskCluster(4, 3);
    await cluster.start();
    const id = await cluster.submit(cluster.node(0));
    await cluster.run(8_000);
    const odd = cluster.nodes.find((node) => !node.leads);
    if (odd === undefined) throw new Error("no follower");
    rot(odd, "payload = '\"rotten\"'", id);
    expect(await cluster.run(8_000, () => odd.condemned !== null)).toBe(true);
    expect(odd.condemned).toContain("has other rows on its disk");
    expect(await read(odd, id, "stale")).toBe("inconsistent");
    await cluster.run(3_000);
    expect(alarms(cluster.node(0)).join()).toContain(`inconsistent ${odd.id}`);
  });

  test("the alarm is over when the member is mended, however long a pass over all rows takes", async () => {
    const cluster = new TaskCluster(17, 3);
    for (const node of cluster.nodes) node.slice = { rows: 3, text: 1024 * 1024 };
    await cluster.start();
    const id = await cluster.submit(cluster.node(0));
    for (let i = 0; i < 30; i++) await cluster.submit(cluster.node(0));
    const odd = cluster.nodes.find((node) => !node.leads);
    if (odd === undefined) throw new Error("no follower");
    const passes = (): number => cluster.leader?.replica?.consistencyChecked().passes ?? 0;
    expect(await cluster.run(60_000, () => passes() > 0)).toBe(true);
    rot(odd, "payload = '\"rotten\"'", id);
    const wasFound = await cluster.run(90_000, () => odd.condemned !== null);
    expect(wasFound).toBe(true);
    expect(await cluster.run(10_000, () => odd.condemned === null)).toBe(true);
    const found = passes();
    await cluster.run(20_000);
    expect(passes() - found).toBeLessThan(2);
    for (const node of cluster.nodes) expect(alarms(node)).toEqual([]);
  });

  test("under writes the members still stop at one index, and the check goes on", async () => {
    const cluster = new TaskCluster(5, 3);
    await cluster.start();
    const ended = cluster.world.now + 8_000;
    let writes = 0;
    while (cluster.world.now < ended) {
      await cluster.submit(cluster.node(writes % 3));
      writes += 1;
    }
    const checked = cluster.leader?.replica?.consistencyChecked();
    expect(checked?.rounds).toBeGreaterThan(4);
    expect(checked?.passes).toBeGreaterThan(2);
    for (const node of cluster.nodes) expect(alarms(node)).toEqual([]);
    const odd = cluster.nodes.find((node) => !node.leads);
    if (odd === undefined) throw new Error("no follower");
    expect(odd.db.run("DELETE FROM tasks WHERE seq = (SELECT min(seq) FROM tasks)").changes).toBe(
      1,
    );
    for (let i = 0; i < 2_000; i++) {
      await cluster.submit(cluster.node(0)).catch(() => null);
      if (odd.condemned !== null) break;
    }
    expect(odd.condemned).not.toBeNull();
  });
});

describe("without a majority", () => {
  test("two members that differ raise an alarm and go on", async () => {
    const cluster = new TaskCluster(6, 2);
    await cluster.start();
    const id = await cluster.submit(cluster.node(0));
    rot(cluster.node(1), "priority = 1", id);
    await cluster.run(8_000);
    for (const node of cluster.nodes) {
      expect(alarms(node)).toEqual(["inconsistent null"]);
      expect(node.condemned).toBeNull();
      await cluster.submit(node);
    }
    // The alarm goes on while it is so, and ends when the rows are equal again.
    await cluster.run(60_000);
    expect(alarms(cluster.node(0))).toEqual(["inconsistent null"]);
    rot(cluster.node(1), "priority = 5", id);
    await cluster.run(60_000);
    expect(alarms(cluster.node(0))).toEqual([]);
  });

  test("a file that cannot be read is taken anew from the others, and is the end of who is alone", async () => {
    for (const size of [3, 1]) {
      const cluster = new TaskCluster(10, size);
      await cluster.start();
      const id = await cluster.submit(cluster.node(0));
      await cluster.run(2_000);
      const odd = cluster.nodes.find((node) => !node.leads) ?? cluster.node(0);
      odd.kill();
      await cluster.run(1_000);
      odd.isMalformed = true;
      await odd.start();
      await cluster.run(10_000, () => odd.condemned !== null || odd.fatal !== null);
      odd.isMalformed = false;
      if (size === 1) {
        expect(odd.fatal).toBeInstanceOf(StateDamage);
        continue;
      }
      expect(odd.warnings.join()).toContain(`the state of ${odd.id} is wrong: its file is damaged`);
      expect(await cluster.run(30_000, () => odd.replica?.condemned() === null)).toBe(true);
      expect(await read(odd, id, "stale")).toBe("answered");
    }
  });

  test("a cluster of one has nobody to compare itself with", async () => {
    const cluster = new TaskCluster(7, 1);
    await cluster.start();
    await cluster.submit(cluster.node(0));
    await cluster.run(20_000);
    // It reads all its rows once, to see that it can.
    expect(cluster.node(0).replica?.consistencyChecked().passes).toBe(1);
    expect(alarms(cluster.node(0))).toEqual([]);
  });
});
