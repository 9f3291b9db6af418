import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type Entry } from "../../src/raft/types.ts";
import { ConsensusError } from "../../src/replica/consensus.ts";
import type { PeerFrame } from "../../src/replica/ports.ts";
import { COMMAND_BYTES_MAX } from "../../src/replica/writes.ts";
import { encodeFrame, MAX_FRAME_BYTES } from "../../src/transport/codec.ts";
import { Cluster, type Node, commandOf } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

function submit(
  node: Node,
  command: unknown,
  timeoutMs = 5_000,
  thisLeadership = false,
): { settled: boolean; answer: unknown; error: string | null } {
  const state: { settled: boolean; answer: unknown; error: string | null } = {
    settled: false,
    answer: null,
    error: null,
  };
  const { replica } = node;
  if (replica === null) throw new Error(`${node.id} is down`);
  replica.submit(commandOf(command), { timeoutMs, thisLeadership }).then(
    (answer) => Object.assign(state, { settled: true, answer }),
    (error: unknown) =>
      Object.assign(state, {
        settled: true,
        error: error instanceof ConsensusError ? error.reason : String(error),
      }),
  );
  return state;
}

describe("a cluster of one", () => {
  test("founds itself, leads, and answers", async () => {
    const cluster = new Cluster(1, 1);
    await cluster.startAll();
    const one = submit(cluster.node(0), { n: 1 });
    await cluster.run(1_000, () => one.settled);
    expect(one.answer).toBe(1);
    expect(cluster.node(0).disk.clusterId).not.toBeNull();
    cluster.check();
  });

  test("goes on where it was after a kill", async () => {
    const cluster = new Cluster(2, 1);
    await cluster.startAll();
    const one = submit(cluster.node(0), { n: 1 });
    await cluster.run(1_000, () => one.settled);
    cluster.kill(cluster.node(0));
    await cluster.start(cluster.node(0));
    const two = submit(cluster.node(0), { n: 2 });
    await cluster.run(2_000, () => two.settled);
    expect(cluster.node(0).machine.trace).toEqual(['{"n":1}', '{"n":2}']);
  });
});

describe("what was applied", () => {
  test("is committed some tenths of a second later, and an idle member commits nothing", async () => {
    const cluster = new Cluster(3, 1);
    await cluster.startAll();
    const { machine } = cluster.node(0);
    await cluster.run(2_000);
    const before = machine.flushes.length;
    const one = submit(cluster.node(0), { n: 1 });
    await cluster.run(50, () => one.settled);
    expect(machine.flushes).toHaveLength(before);
    await cluster.run(500);
    expect(machine.flushes.slice(before)).toEqual([machine.applied().index]);
    await cluster.run(2_000);
    expect(machine.flushes).toHaveLength(before + 1);
  });

  test("is committed before applies are held, and nothing is applied until they are not", async () => {
    const cluster = new Cluster(4, 1);
    await cluster.startAll();
    const { machine, replica } = cluster.node(0);
    const one = submit(cluster.node(0), { n: 1 });
    await cluster.run(50, () => one.settled);
    const release = replica?.holdApplies();
    expect(machine.flushes.at(-1)).toBe(machine.applied().index);
    const two = submit(cluster.node(0), { n: 2 });
    await cluster.run(500, () => two.settled);
    expect(two.settled).toBe(false);
    expect(machine.flushes.at(-1)).toBe(machine.applied().index);
    release?.();
    await cluster.run(500, () => two.settled);
    expect(two.settled).toBe(true);
  });

  test("is committed when the member stops", async () => {
    const cluster = new Cluster(5, 1);
    await cluster.startAll();
    const { machine, replica } = cluster.node(0);
    const one = submit(cluster.node(0), { n: 1 });
    await cluster.run(50, () => one.settled);
    void replica?.stop();
    expect(machine.flushes.at(-1)).toBe(machine.applied().index);
  });
});

describe("memory that was given back", () => {
  test("is that of the log's entries: who missed them is served from the disk, and everything goes on", async () => {
    const cluster = new Cluster(6, 3);
    await cluster.startAll();
    await cluster.run(5_000, () => cluster.leader() !== null);
    const leader = cluster.leader();
    const behind = cluster.nodes.find((node) => node !== leader);
    if (leader === null || behind === undefined) throw new Error("nobody leads");
    cluster.kill(behind);
    for (let n = 1; n <= 5; n++) {
      const one = submit(leader, { n });
      await cluster.run(2_000, () => one.settled);
      expect(one.answer).toBe(n);
    }
    const { replica } = leader;
    expect(replica?.core?.cachedBytes).toBeGreaterThan(0);
    replica?.releaseMemory();
    expect(replica?.core?.cachedBytes).toBe(0);
    const next = submit(leader, { n: 6 });
    await cluster.run(2_000, () => next.settled);
    expect(next.answer).toBe(6);
    await cluster.start(behind);
    await cluster.run(5_000, () => behind.machine.trace.length === 6);
    expect(behind.machine.trace).toEqual(leader.machine.trace);
    cluster.check();
  });
});

describe("founding", () => {
  test("waits until every listed member has answered", async () => {
    const cluster = new Cluster(3, 3);
    await cluster.start(cluster.node(0));
    await cluster.start(cluster.node(1));
    await cluster.run(3_000);
    expect(cluster.leader()).toBeNull();
    expect(cluster.node(0).replica?.status().waiting).toContain("n3");
    await cluster.start(cluster.node(2));
    expect(await cluster.run(5_000, () => cluster.leader() !== null)).toBe(true);
    expect(new Set(cluster.nodes.map(({ disk }) => disk.clusterId)).size).toBe(1);
  });

  test("a founder that dies half-way is completed when it returns", async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const cluster = new Cluster(seed, 3);
      for (const node of cluster.nodes) await cluster.start(node);
      await cluster.run(20, () => cluster.node(0).disk.entries.length > 0);
      cluster.kill(cluster.node(0));
      await cluster.run(2_000);
      await cluster.start(cluster.node(0));
      expect(await cluster.run(8_000, () => cluster.leader() !== null)).toBe(true);
      await cluster.run(2_000, () => cluster.nodes.every(({ disk }) => disk.clusterId !== null));
      expect(new Set(cluster.nodes.map(({ disk }) => disk.clusterId)).size).toBe(1);
      cluster.check();
    }
  });

  test("a wiped folder does not slip back in: it waits to be re-added", async () => {
    const cluster = new Cluster(5, 3);
    await cluster.startAll();
    const victim = cluster.nodes.find((node) => node !== cluster.leader());
    if (victim === undefined) throw new Error("no follower");
    cluster.kill(victim);
    Object.assign(victim.disk, {
      entries: [],
      clusterId: null,
      boot: 0,
      incarnation: "another",
      hardState: { term: 0, vote: null },
    });
    await cluster.start(victim);
    await cluster.run(3_000);
    expect(victim.disk.entries.length).toBe(0);
    const one = submit(cluster.leader() ?? victim, { n: 1 });
    await cluster.run(3_000, () => one.settled);
    expect(one.answer).toBe(1);
  });
});

describe("three members", () => {
  test("one that led and lost the others counts the age of its state from then, not from when it won", async () => {
    const cluster = new Cluster(8, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    if (leader === null || leader.replica === null) throw new Error("no leader");
    const { replica } = leader;
    await cluster.run(10_000);
    for (const node of cluster.nodes) if (node !== leader) cluster.kill(node);
    await cluster.run(2_000);
    expect(replica.status().role).not.toBe("leader");
    const age = replica.status().stalenessMs;
    expect(age).toBeGreaterThan(1_500);
    expect(age).toBeLessThan(2_500);
  });

  test("a call does not overtake what its member submitted before it", async () => {
    const cluster = new Cluster(6, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    const follower = cluster.nodes.find((node) => node !== leader);
    if (leader === null || follower === undefined || follower.replica === null)
      throw new Error("no follower");
    await cluster.run(1_000);
    const kinds: string[] = [];
    cluster.network.watch = {
      sent: (from, to, { kind }) => {
        if (from === follower.id && to === leader.id && kind !== "raft") kinds.push(kind);
      },
      delivered: () => undefined,
    };
    const write = submit(follower, { n: 1 });
    const call = follower.replica.call("replica.beat", null, 1_000).catch(() => null);
    expect(kinds).toEqual(["propose", "call"]);
    await cluster.run(2_000, () => write.settled);
    await call;
  });

  test("any member takes writes, and each happens once, in one order", async () => {
    const cluster = new Cluster(7, 3);
    await cluster.startAll();
    const all = Array.from({ length: 300 }, (_, i) => submit(cluster.node(i % 3), { i }));
    await cluster.run(5_000, () => all.every(({ settled }) => settled));
    expect(all.every(({ error }) => error === null)).toBe(true);
    await cluster.run(500);
    for (const { machine } of cluster.nodes) expect(new Set(machine.trace).size).toBe(300);
    for (const { machine } of cluster.nodes) expect(machine.trace.length).toBe(300);
    cluster.check();
  });

  test("a read-by-index on any member sees every write acknowledged before it", async () => {
    const cluster = new Cluster(8, 3);
    await cluster.startAll();
    for (let round = 0; round < 30; round++) {
      const one = submit(cluster.node(round % 3), { round });
      await cluster.run(3_000, () => one.settled);
      for (const node of cluster.nodes) {
        let seen = -1;
        void node.replica?.linearize(3_000).then(() => (seen = node.machine.trace.length));
        await cluster.run(3_000, () => seen >= 0);
        expect(seen).toBeGreaterThanOrEqual(round + 1);
      }
    }
  });

  test("writes go on within two seconds of the leader's death, and nothing acknowledged is lost", async () => {
    for (let seed = 1; seed <= 15; seed++) {
      const cluster = new Cluster(100 + seed, 3);
      await cluster.startAll();
      const before = Array.from({ length: 50 }, (_, i) =>
        submit(cluster.node(i % 3), { before: i }),
      );
      await cluster.run(cluster.world.prng.between(1, 8));
      const leader = cluster.leader();
      if (leader === null) throw new Error("no leader");
      cluster.kill(leader);
      const survivor = cluster.nodes.find((node) => node !== leader);
      const after = submit(survivor ?? leader, { after: 1 });
      expect(await cluster.run(2_000, () => after.settled)).toBe(true);
      expect(after.error).toBeNull();
      await cluster.start(leader);
      await cluster.run(3_000);
      cluster.check();
      const trace = cluster.node(0).machine.trace;
      expect(new Set(trace).size).toBe(trace.length);
      for (const [i, { answer }] of before.entries()) {
        if (typeof answer === "number")
          expect(trace[answer - 1]).toBe(JSON.stringify({ before: i }));
      }
      expect(cluster.nodes.every(({ machine }) => machine.trace.length === trace.length)).toBe(
        true,
      );
    }
  });

  test("with two dead, writes and reads are refused within two seconds; when one returns, everything goes on", async () => {
    const cluster = new Cluster(9, 3);
    await cluster.startAll();
    cluster.kill(cluster.node(0));
    cluster.kill(cluster.node(1));
    const write = submit(cluster.node(2), { n: 1 });
    let read = "";
    cluster
      .node(2)
      .replica?.linearize(5_000)
      .catch((error: unknown) => {
        if (error instanceof ConsensusError) read = error.reason;
      });
    expect(await cluster.run(2_000, () => write.settled && read !== "")).toBe(true);
    expect(["no-quorum", "outcome-unknown"]).toContain(write.error ?? "");
    expect(read).toBe("no-quorum");
    await cluster.run(2_000);
    const late = submit(cluster.node(2), { n: 2 });
    await cluster.run(1);
    expect(late.error).toBe("no-quorum");
    await cluster.start(cluster.node(0));
    await cluster.run(3_000, () => cluster.leader() !== null);
    await cluster.run(500);
    const again = submit(cluster.node(2), { n: 3 });
    await cluster.run(3_000, () => again.settled);
    expect(again.error).toBeNull();
    cluster.check();
  });

  test("what only one leadership may log is not handed to the next one, nor logged by a follower", async () => {
    const cluster = new Cluster(12, 3);
    await cluster.startAll();
    const old = cluster.leader();
    if (old === null) throw new Error("no leader");
    const others = cluster.nodes.filter((node) => node !== old);
    const set = (cut: boolean): void => {
      for (const { id } of others) {
        cluster.network.setCut(old.id, id, cut);
        cluster.network.setCut(id, old.id, cut);
      }
    };
    set(true);
    const bound = submit(old, { bound: 1 }, 60_000, true);
    const free = submit(old, { free: 1 }, 60_000);
    await cluster.run(5_000, () =>
      others.some(({ replica }) => replica?.status().role === "leader"),
    );
    set(false);
    const follower = cluster.nodes.find(({ replica }) => replica?.status().role !== "leader");
    const elsewhere = submit(follower ?? old, { bound: 2 }, 60_000, true);
    await cluster.run(10_000);
    expect([bound.error, elsewhere.error]).toEqual(["outcome-unknown", "not-leader"]);
    expect(free.settled).toBe(true);
    const last = submit(others[0] ?? old, { last: 1 });
    await cluster.run(5_000, () => last.settled);
    for (const { machine } of cluster.nodes)
      expect(machine.trace.filter((command) => command.includes("bound"))).toEqual([]);
    cluster.check();
  });

  test("leadership is handed over without losing a write", async () => {
    const cluster = new Cluster(10, 3);
    await cluster.startAll();
    const old = cluster.leader();
    let done: boolean | null = null;
    const writes = Array.from({ length: 20 }, (_, i) => submit(cluster.node(i % 3), { i }));
    void old?.replica?.transfer(null, 2_000).then((ok) => (done = ok));
    await cluster.run(3_000, () => done !== null && writes.every(({ settled }) => settled));
    expect(done as boolean | null).toBe(true);
    expect(cluster.leader()).not.toBe(old);
    expect(writes.map(({ error }) => error)).toEqual(writes.map(() => null));
    expect(cluster.node(0).machine.trace.length).toBe(20);
  });

  test("log time never goes back, though the next leader's wall clock is behind by an hour", async () => {
    const cluster = new Cluster(11, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    for (const node of cluster.nodes) if (node !== leader) node.clock.wallOffset = -3_600_000;
    const one = submit(leader, { n: 1 });
    await cluster.run(1_000, () => one.settled);
    cluster.kill(leader);
    const other = cluster.nodes.find((node) => node !== leader);
    if (other === undefined) throw new Error("nobody left");
    const two = submit(other, { n: 2 });
    await cluster.run(4_000, () => two.settled);
    expect(two.error).toBeNull();
    const [first, second] = other.machine.nows;
    expect(second).toBeGreaterThanOrEqual(first ?? Number.POSITIVE_INFINITY);
  });

  test("a member whose wall clock is the odd one out does not campaign", async () => {
    const cluster = new Cluster(12, 3);
    cluster.node(2).clock.wallOffset = 3_600_000;
    await cluster.startAll();
    await cluster.run(3_000);
    for (let round = 0; round < 6; round++) {
      const leader = cluster.leader();
      if (leader === null) throw new Error("no leader");
      expect(leader).not.toBe(cluster.node(2));
      for (const node of cluster.nodes)
        if (node !== leader) cluster.network.setCut(leader.id, node.id, true);
      await cluster.run(1_500);
      cluster.network.heal();
      // Long enough to hear all clocks again: who hears only one other cannot tell whose is wrong.
      await cluster.run(2_000);
    }
    expect(cluster.node(2).replica?.clockAlarm()).toContain("wall clock");
  });
});

describe("under faults drawn from a seed", () => {
  const seeds = Number(process.env.REPLICA_SEEDS ?? 40);
  test(`acknowledged writes happen exactly once and in one order (${seeds} seeds)`, async () => {
    for (let seed = 1; seed <= seeds; seed++) await chaos(seed);
  }, 120_000);
});

async function chaos(seed: number): Promise<void> {
  const cluster = new Cluster(seed * 7919, seed % 4 === 0 ? 5 : 3);
  const { prng } = cluster.world;
  cluster.network.options.loss = prng.pick([0, 0, 0.05, 0.2]);
  cluster.network.options.duplicate = prng.pick([0, 0, 0.3]);
  cluster.network.options.delayMax = prng.pick([2, 2, 20]);
  cluster.diskMax = prng.pick([1, 1, 30]);
  for (const node of cluster.nodes) await cluster.start(node);
  const writes: { i: number; state: ReturnType<typeof submit> }[] = [];
  const reads: Promise<void>[] = [];
  const majority = Math.floor(cluster.nodes.length / 2) + 1;
  for (let step = 0; step < 60; step++) {
    await cluster.run(prng.between(1, 120));
    const up = cluster.nodes.filter(({ replica }) => replica !== null);
    for (let i = 0; i < prng.between(0, 6); i++) {
      const write = { i: writes.length, state: submit(prng.pick(up), { i: writes.length }) };
      writes.push(write);
    }
    const reader = prng.pick(up);
    const acknowledged = writes.filter(({ state }) => typeof state.answer === "number").length;
    reads.push(
      reader.replica?.linearize(2_000).then(
        () => {
          if (reader.replica !== null && reader.machine.trace.length < acknowledged)
            throw new Error(`seed ${seed}: stale read`);
        },
        (error: unknown) => {
          if (!(error instanceof ConsensusError)) throw error;
        },
      ) ?? Promise.resolve(),
    );
    const fault = prng.between(0, 9);
    if (fault === 0 && up.length > majority - 1) cluster.kill(prng.pick(up));
    if (fault <= 2)
      for (const node of cluster.nodes)
        if (node.replica === null && prng.chance(0.6)) await cluster.start(node);
    if (fault === 3)
      cluster.network.setCut(prng.pick(cluster.nodes).id, prng.pick(cluster.nodes).id, true);
    if (fault === 4) {
      const lonely = prng.pick(cluster.nodes);
      for (const node of cluster.nodes)
        if (node !== lonely) cluster.network.setCut(lonely.id, node.id, true);
    }
    if (fault >= 8) cluster.network.heal();
    cluster.check();
  }
  cluster.network.heal();
  cluster.network.options.loss = 0;
  for (const node of cluster.nodes) if (node.replica === null) await cluster.start(node);
  const last = await converged(cluster);
  if (!last) throw new Error(`seed ${seed}: the cluster did not recover`);
  cluster.check();
  const { trace } = cluster.node(0).machine;
  expect(new Set(trace).size).toBe(trace.length);
  for (const { i, state } of writes) {
    if (typeof state.answer !== "number") continue;
    if (trace[state.answer - 1] !== JSON.stringify({ i }))
      throw new Error(`seed ${seed}: write ${i} was acknowledged and lost`);
  }
  void Promise.all(reads);
}

async function converged(cluster: Cluster): Promise<boolean> {
  for (let round = 0; round < 20; round++) {
    const probe = submit(cluster.node(0), { probe: round });
    await cluster.run(3_000, () => probe.settled);
    if (probe.error === null) break;
  }
  return cluster.run(5_000, () => {
    const lengths = new Set(cluster.nodes.map(({ machine }) => machine.trace.length));
    return lengths.size === 1 && cluster.leader() !== null;
  });
}

describe("a disk that is almost full", () => {
  test("a leader hands over and writes nothing; a follower refuses its own writes only", async () => {
    const cluster = new Cluster(21, 3);
    await cluster.startAll();
    const leader = cluster.leader();
    if (leader === null) throw new Error("no leader");
    leader.diskFull = true;
    const refused = submit(leader, { n: 1 });
    await cluster.run(10, () => refused.settled);
    expect(refused.error).toBe("low-disk");
    expect(
      await cluster.run(5_000, () => cluster.leader() !== null && cluster.leader() !== leader),
    ).toBe(true);
    const other = cluster.leader();
    if (other === null) throw new Error("no leader");
    const taken = submit(other, { n: 2 });
    await cluster.run(3_000, () => taken.settled);
    expect(taken.answer).toBe(1);
    leader.diskFull = false;
    const again = submit(leader, { n: 3 });
    await cluster.run(3_000, () => again.settled);
    expect(again.answer).toBe(2);
  });
});

describe("a member with no room for another command of its own", () => {
  test("goes on sealing what it has, though the layer above wants to add to the entry", async () => {
    const cluster = new Cluster(31, 1);
    await cluster.startAll();
    const node = cluster.node(0);
    const { replica } = node;
    if (replica === null) throw new Error("no replica");
    const additions: Promise<unknown>[] = [];
    replica.onSeal((_batch, _index, add) => {
      if (additions.length > 0) return;
      while (additions.length < 2_000) additions.push(add(commandOf({ more: additions.length })));
    });
    const all = Array.from({ length: 17_000 }, (_, n) => submit(node, { n }, 30_000));
    await cluster.run(30_000, () => all.every(({ settled }) => settled));
    const outcomes = await Promise.allSettled(additions);
    cluster.check();
    expect(all.filter(({ error }) => error === null).length).toBe(16_384);
    expect(all.filter(({ error }) => error === "overloaded").length).toBe(17_000 - 16_384);
    // Some room is kept for what the leader adds, and it ends too.
    expect(outcomes.filter(({ status }) => status === "fulfilled").length).toBe(1_024);
    const late = submit(node, { late: true });
    await cluster.run(2_000, () => late.settled);
    expect(late.error).toBeNull();
  });
});

describe("the largest entry", () => {
  /** Encoded sizes of the entries that a burst of commands becomes. */
  async function entrySizes(texts: readonly string[]): Promise<number[]> {
    const cluster = new Cluster(33, 1);
    await cluster.startAll();
    const node = cluster.node(0);
    node.replica?.onSeal((_batch, _index, add) => {
      for (let n = 0; n < 8; n++) add(commandOf("界".repeat(100_000))).catch(() => undefined);
    });
    const all = texts.map((text) => submit(node, text));
    await cluster.run(20_000, () => all.every(({ settled }) => settled));
    cluster.check();
    expect(all.map(({ error }) => error)).toEqual(all.map(() => null));
    return node.disk.entries.map((entry) => encodeFrame(appendOf(entry)).length);
  }

  const appendOf = (entry: Entry): PeerFrame => ({
    kind: "raft",
    message: {
      type: "append",
      from: asNodeId("n1"),
      to: asNodeId("n2"),
      term: asTerm(9),
      prevIndex: asIndex(entry.index - 1),
      prevTerm: entry.term,
      commit: asIndex(0),
      entries: [entry],
    },
  });

  test("fits a frame, though the characters take three bytes each and the leader adds to it", async () => {
    const text = "界".repeat(2_500_000);
    const sizes = await entrySizes([text, text, text]);
    expect(Math.max(...sizes)).toBeLessThan(MAX_FRAME_BYTES);
  });

  test("fits a frame, though one command is twice as large as a request", async () => {
    const sizes = await entrySizes(["x".repeat(17 * 1024 * 1024)]);
    expect(Math.max(...sizes)).toBeGreaterThan(17 * 1024 * 1024);
    expect(Math.max(...sizes)).toBeLessThan(MAX_FRAME_BYTES);
  });

  test("is the end of what a command may be: a larger one is refused and logged nowhere", async () => {
    const cluster = new Cluster(34, 1);
    await cluster.startAll();
    const node = cluster.node(0);
    const before = node.disk.entries.length;
    const one = submit(node, "x".repeat(COMMAND_BYTES_MAX));
    await cluster.run(1_000, () => one.settled);
    expect(one.error).toContain("larger than an entry may be");
    await cluster.run(200);
    expect(node.disk.entries.length).toBe(before);
  });
});

test("members that all stood still, as their machine did, refuse nothing then, and elect nobody", async () => {
  const cluster = new Cluster(36, 3, { delayMin: 40, delayMax: 45 });
  await cluster.startAll();
  await cluster.run(1_000);
  const term = cluster.leader()?.replica?.status().term;
  for (const { clock } of cluster.nodes) clock.pause(4_000);
  await cluster.run(3_990);
  // Before any of them has heard of another again.
  const during = cluster.nodes.map((node, n) => submit(node, { n }));
  await cluster.run(4_000, () => during.every(({ settled }) => settled));
  expect(during.map(({ error }) => error)).toEqual([null, null, null]);
  // One tick a turn, however late it is: the messages that wait come first.
  expect(cluster.leader()?.replica?.status().term).toBe(term);
});

test("a leader whose own loop stood still does not take that for the loss of its quorum", async () => {
  const cluster = new Cluster(35, 1);
  await cluster.startAll();
  const node = cluster.node(0);
  const before = submit(node, { n: 1 });
  node.clock.pause(4_000);
  await cluster.run(3_990);
  // Handled before the first tick after the pause, as a burst of requests is.
  const during = submit(node, { n: 2 });
  await cluster.run(2_000, () => before.settled && during.settled);
  expect([before.error, during.error]).toEqual([null, null]);
});

test("a leader whose every turn is long sends its heartbeats by the clock, and stays", async () => {
  const cluster = new Cluster(37, 3);
  await cluster.startAll();
  await cluster.run(1_000);
  const leader = cluster.leader();
  const term = leader?.replica?.status().term;
  for (let turn = 0; turn < 50; turn++) {
    leader?.clock.pause(150);
    await cluster.run(150.5);
  }
  expect(cluster.leader()).toBe(leader);
  expect(leader?.replica?.status().term).toBe(term);
});

describe("an answer to what an earlier process of a member asked is none to what it asks now:", () => {
  async function three(seed: number) {
    const cluster = new Cluster(seed, 3);
    await cluster.startAll();
    await cluster.run(1_000);
    const leader = cluster.leader();
    const [asking, other] = cluster.nodes.filter((node) => node !== leader);
    if (leader === null || asking === undefined || other === undefined)
      throw new Error("no leader");
    return { cluster, leader, asking, other };
  }

  test("a read", async () => {
    const { cluster, leader, asking, other } = await three(38);
    // From its start on, as the next one will: the same numbers, if they are counted from the same one.
    cluster.kill(asking);
    await cluster.run(100);
    await cluster.start(asking);
    await cluster.run(1_000);
    // No round of heartbeats is confirmed, so the read waits at the leader, while entries are acknowledged.
    for (const { id } of [asking, other])
      cluster.network.sieve(id, leader.id, "heartbeat-reply", 150);
    asking.replica?.linearize(5_000).catch(() => undefined);
    await cluster.run(10);
    cluster.kill(asking);
    cluster.network.sieve(other.id, leader.id, "heartbeat-reply", 5_000);
    const write = submit(leader, { n: 1 });
    await cluster.run(130, () => write.settled);
    expect(write.answer).toBe(1);
    const written = leader.machine.applied().index;
    // The next process asks before the round of the earlier one's read is confirmed, which it does itself.
    cluster.network.sieve(asking.id, leader.id, "heartbeat-reply", 5_000);
    await cluster.start(asking);
    await cluster.run(1_000, () => asking.replica?.status().leader === leader.id);
    cluster.network.sieve(asking.id, leader.id, "heartbeat-reply", 20);
    const read = asking.replica?.linearize(5_000);
    let index = 0;
    void read?.then((safe) => (index = safe));
    await cluster.run(2_000, () => index > 0);
    expect(index).toBeGreaterThanOrEqual(written);
  });

  test("a call", async () => {
    const { cluster, leader, asking } = await three(39);
    leader.replica?.serve(
      "echo",
      (body) => new Promise((resolve) => void leader.clock.after(1_000, () => resolve(body))),
    );
    const ask = (who: string): string[] => {
      const answers: string[] = [];
      for (let n = 0; n < 100; n++)
        asking.replica
          ?.call("echo", who, 5_000)
          .then((body) => answers.push(body as string))
          .catch(() => undefined);
      return answers;
    };
    ask("the earlier one");
    await cluster.run(100);
    cluster.kill(asking);
    await cluster.start(asking);
    await cluster.run(700);
    const answers = ask("this one");
    await cluster.run(4_000, () => answers.length === 100);
    expect(new Set(answers)).toEqual(new Set(["this one"]));
    expect(answers).toHaveLength(100);
  });
});
