import { describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { SnapshotFrame, SnapshotStore } from "../../src/replica/ports.ts";
import { BEHIND_BYTES_MAX, SnapshotSender } from "../../src/replica/snapshot-sender.ts";
import { ManualClock, silent } from "../storage/manual-clock.ts";

const GIB = 1024 * 1024 * 1024;
const RECEIVER = asNodeId("n3");

/** A store whose copies are all zeros, as of the index that is applied when they are asked for. */
class Copies implements SnapshotStore {
  made = 0;
  full = false;
  readonly removed: string[] = [];

  constructor(readonly applied: () => number) {}

  async create() {
    this.made += 1;
    if (this.full) throw new Error("the disk is full");
    const id = `${this.applied()}-${String(this.made).padStart(16, "0")}`;
    const [index, term] = [asIndex(this.applied()), asTerm(1)];
    return { id, index, term, machineVersion: 1, bytes: 1_000_000, checksum: "" };
  }
  async read(_id: string, _offset: number, bytes: number) {
    return { data: new Uint8Array(bytes), crc: 0 };
  }
  async remove(id: string) {
    this.removed.push(id);
  }
  async receive() {}
  async write() {
    return true;
  }
  async verify() {}
  async discard() {}
  reset(): Promise<void> {
    return Promise.reject(new Error("not here"));
  }

  async install() {}
  async replaceState() {}
  async close() {}
}

class Leader {
  readonly clock = new ManualClock();
  applied = 1_000;
  match = 10;
  isNear = false;
  logBytes = 0;
  isStateWrong = false;
  readonly told: SnapshotFrame[] = [];
  readonly store = new Copies(() => this.applied);
  readonly sender = new SnapshotSender({
    store: this.store,
    clock: this.clock,
    log: silent,
    flush: () => undefined,
    describe: (copy) => ({
      ...copy,
      configuration: { voters: [], outgoing: [], learners: [], learnersNext: [], members: {} },
      bootstrap: { clusterId: "c", createdAt: 0, members: [], settings: null, machineVersion: 1 },
    }),
    isStateWrong: () => this.isStateWrong,
    applied: () => asIndex(this.applied),
    compacted: () => asIndex(900),
    progress: () => ({ match: asIndex(this.match), isNear: this.isNear }),
    logBytes: () => this.logBytes,
    send: (_to, frame) => {
      this.told.push(frame);
      if (frame.type === "chunk") this.waiting += frame.data.length;
      return true;
    },
    waitingBytes: () => this.waiting,
  });
  /** In the socket. */
  waiting = 0;

  async open(): Promise<void> {
    this.sender.frame(RECEIVER, { type: "open", held: null });
    for (let i = 0; i < 5; i++) await Promise.resolve();
  }

  async pass(ms: number): Promise<void> {
    for (let at = 0; at < ms; at += 1_000) {
      await this.clock.pass(1_000, 0);
      this.sender.sweep(this.clock.monotonic());
    }
  }

  /** Time passes in small steps, in which what was begun goes on. */
  async wait(ms: number): Promise<void> {
    for (let at = 0; at < ms; at += 5) {
      await this.clock.pass(5, 0);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  get copyId(): string {
    const manifest = this.told.findLast((frame) => frame.type === "manifest");
    if (manifest === undefined) throw new Error("there is nothing to read");
    return manifest.manifest.id;
  }

  /** The receiver reads on. */
  read(): void {
    const id = this.copyId;
    this.sender.frame(RECEIVER, { type: "read", id, offset: 0, bytes: 1_000 });
  }
}

describe("the log that is kept for a member that fetches a snapshot", () => {
  test("is all behind the copy, and then all behind what it has, until what it lacks is in memory", async () => {
    const leader = new Leader();
    leader.sender.offered(RECEIVER);
    expect(leader.sender.floor).toBe(asIndex(1_000));
    await leader.open();
    leader.applied = 9_000;
    for (let i = 0; i < 10; i++) {
      leader.read();
      await leader.pass(30_000);
    }
    leader.match = 1_000;
    await leader.pass(40_000);
    leader.match = 8_900;
    await leader.pass(40_000);
    expect(leader.sender.floor).toBe(asIndex(8_900));
    leader.isNear = true;
    await leader.pass(1_000);
    expect(leader.sender.floor).toBeNull();
  });

  test("does not grow beyond 2 GiB: then the receiver is dropped, and served anew a minute later", async () => {
    const leader = new Leader();
    leader.sender.offered(RECEIVER);
    await leader.open();
    leader.logBytes = 2 * GIB;
    await leader.pass(1_000);
    expect(leader.sender.floor).toBe(asIndex(1_000));
    leader.logBytes = 2 * GIB + 1;
    await leader.pass(1_000);
    expect(leader.sender.floor).toBeNull();
    expect(leader.sender.dropped).toBe(1);
    expect(leader.told.at(-1)).toMatchObject({ type: "gone" });
    // The core goes on offering it one, and it goes on asking.
    leader.sender.offered(RECEIVER);
    await leader.open();
    expect(leader.sender.floor).toBeNull();
    expect(leader.told.at(-1)).toMatchObject({ type: "gone" });
    expect(leader.store.made).toBe(1);
    leader.applied = 50_000;
    leader.logBytes = GIB / 8;
    await leader.pass(61_000);
    leader.sender.offered(RECEIVER);
    await leader.open();
    expect(leader.sender.floor).toBe(asIndex(50_000));
    expect(leader.told.at(-1)).toMatchObject({ type: "manifest", manifest: { index: 50_000 } });
  });

  test("is kept though there is no room for a copy yet, and the copy is not tried at every question", async () => {
    const leader = new Leader();
    leader.store.full = true;
    for (let i = 0; i < 9; i++) {
      await leader.open();
      expect(leader.told.at(-1)).toMatchObject({ type: "gone", detail: "the disk is full" });
      await leader.pass(1_000);
    }
    expect(leader.store.made).toBe(1);
    leader.store.full = false;
    await leader.pass(2_000);
    await leader.open();
    expect(leader.told.at(-1)).toMatchObject({ type: "manifest" });
  });

  test("is not kept for one that asks again and again and never reads", async () => {
    const leader = new Leader();
    for (let i = 0; i < 65; i++) {
      leader.sender.offered(RECEIVER);
      await leader.open();
      leader.applied += 100;
      await leader.pass(1_000);
    }
    expect(Number(leader.sender.floor)).toBeGreaterThan(1_000);
    expect(leader.store.removed).toHaveLength(1);
  });
});

describe("a state that was found wrong", () => {
  test("is copied for nobody", async () => {
    const leader = new Leader();
    leader.isStateWrong = true;
    leader.sender.offered(RECEIVER);
    await leader.open();
    expect(leader.told).toMatchObject([{ type: "gone", id: null }]);
    expect(leader.store.made).toBe(0);
  });

  test("is given to nobody by a copy that was made before, also when another state has taken its place", async () => {
    const leader = new Leader();
    await leader.open();
    const wrong = leader.copyId;
    leader.isStateWrong = true;
    leader.sender.disown();
    leader.read();
    await leader.wait(10);
    expect(leader.told.at(-1)).toMatchObject({ type: "gone", id: wrong });
    leader.isStateWrong = false;
    await leader.open();
    expect(leader.copyId).not.toBe(wrong);
    expect(leader.store.removed).toEqual([wrong]);
  });

  test("is given to nobody by the copy that is just being made, either", async () => {
    const leader = new Leader();
    const opening = leader.open();
    leader.sender.disown();
    await opening;
    expect(leader.told).toMatchObject([{ type: "gone", id: null }]);
    expect(leader.store.removed).toHaveLength(1);
    await leader.pass(10_000);
    await leader.open();
    expect(leader.told.at(-1)).toMatchObject({ type: "manifest" });
  });
});

describe("a copy that a receiver would not have", () => {
  /** Its log begins behind the copy, and its state is wrong: it asks for a state that its log goes on from. */
  async function refused(): Promise<Leader> {
    const leader = new Leader();
    await leader.open();
    leader.match = 1_100;
    leader.sender.frame(RECEIVER, { type: "done", id: leader.copyId });
    return leader;
  }

  test("is followed by a newer one when it asks again", async () => {
    const leader = await refused();
    leader.applied = 1_100;
    await leader.open();
    expect(leader.told.at(-1)).toMatchObject({ type: "manifest", manifest: { index: 1_100 } });
    expect(leader.store.removed).toHaveLength(1);
    // That one is offered until it says something of it.
    leader.applied = 1_200;
    await leader.open();
    expect(leader.told.at(-1)).toMatchObject({ type: "manifest", manifest: { index: 1_100 } });
  });

  test("is good for the others, and for it as well while there is nothing newer", async () => {
    const leader = await refused();
    await leader.open();
    leader.applied = 1_100;
    leader.sender.frame(asNodeId("n2"), { type: "open", held: null });
    await leader.wait(10);
    expect(leader.store.made).toBe(1);
    expect(leader.told.filter(({ type }) => type === "manifest")).toHaveLength(3);
  });

  test("is not made anew for one whose log ends before it, and that could not install it", async () => {
    const leader = await refused();
    leader.match = 10;
    leader.applied = 1_100;
    await leader.open();
    expect(leader.store.made).toBe(1);
  });
});

describe("a snapshot on the way over a slow link", () => {
  const CHUNK = 256 * 1024;

  test("lets heartbeats and entries wait behind a bounded number of its bytes, whatever is asked for", async () => {
    const leader = new Leader();
    leader.sender.offered(RECEIVER);
    await leader.open();
    const id = leader.copyId;
    let most = 0;
    let sent = 0;
    for (let round = 0; round < 400; round++) {
      // The link takes 10 KiB a round; the receiver asks for its window again and again.
      for (let i = 0; i < 4; i++)
        leader.sender.frame(RECEIVER, { type: "read", id, offset: i * CHUNK, bytes: CHUNK });
      await leader.wait(10);
      sent += Math.min(leader.waiting, 10 * 1024);
      leader.waiting = Math.max(0, leader.waiting - 10 * 1024);
      most = Math.max(most, leader.waiting);
    }
    expect(most).toBeLessThanOrEqual(BEHIND_BYTES_MAX + CHUNK);
    // The link was never idle for it.
    expect(sent).toBeGreaterThan(390 * 10 * 1024);
  });

  test("sends a chunk once that is asked for again before it has left", async () => {
    const leader = new Leader();
    leader.sender.offered(RECEIVER);
    await leader.open();
    leader.waiting = BEHIND_BYTES_MAX + 1;
    const read = { type: "read", id: leader.copyId, offset: 0, bytes: 1_000 } as const;
    for (let i = 0; i < 3; i++) leader.sender.frame(RECEIVER, read);
    await leader.wait(100);
    const chunks = (): number => leader.told.filter(({ type }) => type === "chunk").length;
    expect(chunks()).toBe(0);
    leader.waiting = 0;
    await leader.wait(100);
    expect(chunks()).toBe(1);
    leader.sender.frame(RECEIVER, read);
    await leader.wait(100);
    expect(chunks()).toBe(2);
  });
});
