/** What a member holds of its log in memory does not grow with history, nor beyond 24 MB with any traffic. */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  ackOf,
  asIndex,
  asNodeId,
  asTerm,
  DEFAULT_LIMITS,
  type Entry,
  foundingEntry,
  type Message,
  type PersistOp,
  Raft,
  recoveredState,
} from "../../src/raft/index.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const MOST = 24_000_000;
const ids = ["a", "b", "c"].map(asNodeId);

interface Member {
  readonly core: Raft;
  /** Handed over and not durable. */
  readonly writes: PersistOp[];
  readonly after: Message[];
}

/** Three cores whose disks write when they are told to. */
class Cores {
  readonly members = new Map<string, Member>();
  #network: Message[] = [];
  greatest = 0;

  constructor() {
    const start = recoveredState({ entries: [foundingEntry(ids)] });
    for (const id of ids) {
      const options = { heartbeatTicks: 1, electionTicks: 10, stallTicks: 20 };
      const core = new Raft(
        { id, ...DEFAULT_LIMITS, ...options, drawElectionTicks: () => 10 },
        start,
      );
      this.members.set(id, { core, writes: [], after: [] });
    }
    this.member("a").core.campaign();
    this.settle(true);
  }

  member(id: string): Member {
    const member = this.members.get(id);
    if (member === undefined) throw new Error(`no member ${id}`);
    return member;
  }

  settle(disks: boolean): void {
    for (let busy = true; busy;) {
      busy = false;
      for (const { core, writes, after } of this.members.values()) {
        for (let todo = core.takeEffects(); todo !== null; todo = core.takeEffects()) {
          busy = true;
          this.#network.push(...todo.messages);
          if (todo.persist !== null) writes.push(todo.persist);
          after.push(...todo.afterPersist);
          if (todo.applicable !== null) core.applied(todo.applicable);
          for (const { peer } of todo.fetches) core.fetched(peer, []);
        }
        if (disks || writes.length === 0) {
          for (const write of writes.splice(0)) core.persisted(ackOf(write));
          busy ||= after.length > 0;
          this.#network.push(...after.splice(0));
        }
        this.greatest = Math.max(this.greatest, core.cachedBytes);
      }
      const arriving = this.#network;
      this.#network = [];
      for (const message of arriving) {
        busy = true;
        this.members.get(message.to)?.core.step(message);
      }
    }
  }
}

for (const [what, bytes] of [
  ["small entries", 100],
  ["batches of a busy leader", 512 * 1024],
  ["the largest entries that there are", 18 * 1024 * 1024],
] as const) {
  test(`${what}, on disks that answer late and on disks that do not: never more than 24 MB`, () => {
    const cores = new Cores();
    const { core } = cores.member("a");
    const data = new Uint8Array(bytes);
    // As many as the leader takes; the disks write only every third time, or not at all for a while.
    for (let turn = 0; turn < 40; turn++) {
      for (let n = 0; n < 2_000; n++) {
        if (!core.propose([{ kind: "command", data }]).ok) break;
      }
      cores.settle(turn % 3 === 0 && (turn < 12 || turn > 24));
      for (const { core: each } of cores.members.values()) if (each.role !== "leader") each.tick();
    }
    cores.settle(true);
    expect(core.role).toBe("leader");
    expect(cores.greatest).toBeGreaterThan(Math.min(bytes, 1_000_000));
    expect(cores.greatest).toBeLessThanOrEqual(MOST);
  });
}

test("a follower that is sent more than it can write holds 24 MB, and takes the rest later", () => {
  const follower = new Raft(
    {
      id: asNodeId("b"),
      ...DEFAULT_LIMITS,
      heartbeatTicks: 1,
      electionTicks: 10,
      stallTicks: 20,
      drawElectionTicks: () => 10,
    },
    recoveredState({ entries: [foundingEntry(ids)] }),
  );
  const data = new Uint8Array(1_000_000);
  const append = (index: number): Message => {
    const term = asTerm(2);
    const entry: Entry = { index: asIndex(index), term, kind: "command", data };
    const prevTerm = index === 2 ? asTerm(1) : term;
    return {
      type: "append",
      from: asNodeId("a"),
      to: asNodeId("b"),
      term,
      prevIndex: asIndex(index - 1),
      prevTerm,
      entries: [entry],
      commit: asIndex(0),
    };
  };
  for (let index = 2; index < 100; index++) {
    follower.step(append(index));
    follower.takeEffects();
    expect(follower.cachedBytes).toBeLessThanOrEqual(MOST);
  }
  expect(follower.lastIndex).toBeLessThan(30);
});

test("after half a million entries a core holds as much as after a thousand", () => {
  const cores = new Cores();
  const { core } = cores.member("a");
  const data = new Uint8Array(1_000);
  const sizes: number[] = [];
  for (let round = 0; round < 50; round++) {
    for (let n = 0; n < 20; n++)
      core.propose(Array.from({ length: 500 }, () => ({ kind: "command" as const, data })));
    cores.settle(true);
    for (const { core: each } of cores.members.values())
      each.compacted(asIndex(Math.max(1, each.appliedIndex - 10)));
    sizes.push(core.cachedBytes);
  }
  expect(core.lastIndex).toBeGreaterThan(400_000);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(sizes[0] ?? 0);
});
