/**
 * What every log store must do, whatever it keeps the log in. A store's own test calls this with a factory
 * and adds what only it can get wrong.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type NodeId } from "../../src/raft/types.ts";
import { FatalError, type LogStore } from "../../src/replica/ports.ts";
import { entry, hard, plain, run, write } from "./entries.ts";

const TAIL_BYTES = 1024 * 1024;

/** One place that outlives the stores that are opened on it. */
export interface LogPlace {
  /** A new store on what the one before left; that one is closed. */
  store(member?: NodeId): LogStore;
  /** The state database of this name is the current one from now on. */
  makeCurrent(state: string): void;
  remove(): void;
}

export function logSuite(name: string, createPlace: () => LogPlace): void {
  describe(`a log store: ${name}`, () => {
    let place: LogPlace;
    let log: LogStore;

    beforeEach(() => {
      place = createPlace();
      log = place.store();
    });
    afterEach(async () => {
      await log.close();
      place.remove();
    });

    async function reopen(tailBytes = TAIL_BYTES) {
      await log.close();
      log = place.store();
      return log.open(tailBytes);
    }

    test("a new log is empty, unbound, and has an incarnation of its own", async () => {
      const recovered = await log.open(TAIL_BYTES);
      expect(recovered).toMatchObject({
        hardState: { term: 0, vote: null },
        compacted: { index: 0, term: 0 },
        lastIndex: 0,
        terms: [],
        configurations: [],
        tail: [],
      });
      expect(recovered.identity).toMatchObject({ id: "n1", clusterId: null, boot: 1 });
      expect(recovered.identity.incarnation).not.toBe("");
    });

    test("boots are counted and the incarnation stays", async () => {
      const first = await log.open(TAIL_BYTES);
      await reopen();
      const third = await reopen();
      expect(third.identity.boot).toBe(3);
      expect(third.identity.incarnation).toBe(first.identity.incarnation);
    });

    test("entries, term and vote come back as they were written", async () => {
      await log.open(TAIL_BYTES);
      const written = [
        entry(1, 1, "founding", "bootstrap"),
        entry(2, 1, new Uint8Array(0), "noop"),
        entry(3, 2, new Uint8Array([0, 255, 0, 1]).subarray(1, 3)),
        entry(4, 2, "members", "config"),
      ];
      await write(log, { hardState: hard(2, "n3"), entries: written });
      const recovered = await reopen();
      expect(recovered.hardState).toEqual(hard(2, "n3"));
      expect(recovered.lastIndex).toBe(asIndex(4));
      expect(plain(recovered.tail)).toEqual(plain(written));
      expect(recovered.terms).toEqual([
        { index: asIndex(1), term: asTerm(1) },
        { index: asIndex(3), term: asTerm(2) },
      ]);
      expect(recovered.configurations.map(({ index }) => Number(index))).toEqual([1, 4]);
    });

    test("a vote for nobody is not a vote for an empty name", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(5, "n2") });
      await write(log, { hardState: hard(6) });
      expect((await reopen()).hardState).toEqual(hard(6, null));
    });

    test("acknowledgements come in the order of the calls and name what they are for", async () => {
      await log.open(TAIL_BYTES);
      const acks: string[] = [];
      const note = (ack: Awaited<ReturnType<typeof write>>): void => {
        acks.push(
          `${ack.hardState?.term ?? "-"} ${ack.last?.index ?? "-"}/${ack.last?.term ?? "-"}`,
        );
      };
      await Promise.all([
        write(log, { hardState: hard(1) }).then(note),
        write(log, { entries: run(1, 3, 1) }).then(note),
        write(log, { hardState: hard(2), entries: [entry(3, 2)] }).then(note),
        write(log, {}).then(note),
      ]);
      expect(acks).toEqual(["1 -/-", "- 3/1", "2 3/2", "- -/-"]);
    });

    test("an append replaces everything at and beyond its first index", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(1), entries: run(1, 9, 1) });
      await write(log, { hardState: hard(2), entries: [entry(4, 2), entry(5, 2)] });
      const expected = [...run(1, 3, 1), entry(4, 2), entry(5, 2)];
      expect(plain(await log.read(asIndex(1), asIndex(99), TAIL_BYTES))).toEqual(plain(expected));
      const recovered = await reopen();
      expect(recovered.lastIndex).toBe(asIndex(5));
      expect(plain(recovered.tail)).toEqual(plain(expected));
    });

    test("a read sees every write that was handed over before it", async () => {
      await log.open(TAIL_BYTES);
      for (let i = 1; i <= 50; i++)
        log.append({ hardState: null, entries: [entry(i, 1)] }, () => {});
      const read = await log.read(asIndex(40), asIndex(50), TAIL_BYTES);
      expect(plain(read)).toEqual(plain(run(40, 50, 1)));
    });

    test("a read is cut before its bytes exceed the limit, but holds at least one entry", async () => {
      await log.open(TAIL_BYTES);
      const entries = [1, 2, 3, 4].map((i) => entry(i, 1, new Uint8Array(100)));
      await write(log, { entries });
      expect(await log.read(asIndex(1), asIndex(4), 250)).toHaveLength(2);
      expect(await log.read(asIndex(1), asIndex(4), 300)).toHaveLength(3);
      expect(await log.read(asIndex(1), asIndex(4), 1)).toHaveLength(1);
      expect(await log.read(asIndex(3), asIndex(3), 1_000)).toHaveLength(1);
    });

    test("a read beyond the end or below the compaction finds nothing", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(1), entries: run(1, 10, 1) });
      await log.compact(asIndex(4), asTerm(1));
      expect(await log.read(asIndex(11), asIndex(20), 1_000)).toEqual([]);
      expect(await log.read(asIndex(4), asIndex(6), 1_000)).toEqual([]);
      expect(await log.read(asIndex(5), asIndex(6), 1_000)).toHaveLength(2);
    });

    test("the tail is the newest entries that fit, in order", async () => {
      await log.open(TAIL_BYTES);
      const entries = Array.from({ length: 40 }, (_, i) => entry(i + 1, 1, new Uint8Array(100)));
      await write(log, { hardState: hard(1), entries });
      const { tail, lastIndex } = await reopen(1_050);
      expect(lastIndex).toBe(asIndex(40));
      expect(tail.map(({ index }) => Number(index))).toEqual(
        Array.from({ length: 10 }, (_, i) => i + 31),
      );
    });

    test("compaction forgets the beginning and remembers index and term of its end", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(3), entries: [...run(1, 5, 1), ...run(6, 12, 3)] });
      await log.compact(asIndex(6), asTerm(3));
      expect(log.stats().entries).toBe(6);
      const recovered = await reopen();
      expect(recovered.compacted).toEqual({ index: asIndex(6), term: asTerm(3) });
      expect(recovered.terms).toEqual([{ index: asIndex(7), term: asTerm(3) }]);
      expect(plain(recovered.tail)).toEqual(plain(run(7, 12, 3)));
      await write(log, { entries: [entry(13, 3)] });
      expect((await reopen()).lastIndex).toBe(asIndex(13));
    });

    test("a log that is compacted up to its end goes on behind it", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(2), entries: run(1, 5, 2) });
      await log.compact(asIndex(5), asTerm(2));
      const recovered = await reopen();
      expect(recovered).toMatchObject({ lastIndex: 5, tail: [], terms: [] });
      await write(log, { entries: [entry(6, 2)] });
      expect((await reopen()).lastIndex).toBe(asIndex(6));
    });

    test("compaction keeps the founding and the newest membership that it forgets", async () => {
      await log.open(TAIL_BYTES);
      const entries = [
        entry(1, 1, "founding", "bootstrap"),
        entry(2, 1, "first", "config"),
        entry(3, 1),
        entry(4, 1, "second", "config"),
        entry(5, 1),
        entry(6, 1, "third", "config"),
      ];
      await write(log, { hardState: hard(1), entries });
      await log.compact(asIndex(2), asTerm(1));
      await log.compact(asIndex(5), asTerm(1));
      const recovered = await reopen();
      expect(recovered.foundations?.map(({ index }) => Number(index))).toEqual([1, 4]);
      expect(recovered.configurations.map(({ index }) => Number(index))).toEqual([6]);
    });

    test("a compaction again, or further back, changes nothing", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(1), entries: run(1, 10, 1) });
      await log.compact(asIndex(5), asTerm(1));
      await log.compact(asIndex(5), asTerm(1));
      await log.compact(asIndex(2), asTerm(1));
      expect((await reopen()).compacted).toEqual({ index: asIndex(5), term: asTerm(1) });
    });

    test("a compaction beyond the end, or with another term, is refused and forgets nothing", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(2), entries: run(1, 5, 1) });
      expect(await failure(log.compact(asIndex(6), asTerm(1)))).toContain("the log ends at 5");
      expect(await failure(log.compact(asIndex(3), asTerm(2)))).toContain("its term here is 1");
      const recovered = await reopen();
      expect(recovered.compacted.index).toBe(asIndex(0));
      expect(recovered.tail).toHaveLength(5);
    });

    const snapshot = {
      index: asIndex(20),
      term: asTerm(4),
      state: "state-20-aa.db",
      foundations: [
        entry(1, 1, "founding", "bootstrap"),
        entry(20, 4, "members as of 20", "config"),
      ],
    };

    test("an install that is finished replaces everything held, what lies behind it too", async () => {
      await log.open(TAIL_BYTES);
      // Longer than the snapshot, and of another term there: a suffix that was kept would diverge.
      await write(log, {
        hardState: hard(5, "n2"),
        entries: [entry(1, 1, "founding", "bootstrap"), ...run(2, 25, 3)],
      });
      await log.markInstall(snapshot);
      place.makeCurrent(snapshot.state);
      await log.finishInstall();
      expect(log.stats().entries).toBe(0);
      await write(log, { entries: [entry(21, 5)] });
      const recovered = await reopen();
      expect(recovered).toMatchObject({
        compacted: { index: 20, term: 4 },
        lastIndex: 21,
        hardState: { term: 5, vote: "n2" },
        configurations: [],
      });
      expect(plain(recovered.foundations ?? [])).toEqual(plain(snapshot.foundations));
    });

    test("an install that a crash stopped before the switch never happened", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(3), entries: run(1, 9, 3) });
      await log.markInstall(snapshot);
      const recovered = await reopen();
      expect(recovered).toMatchObject({ compacted: { index: 0 }, lastIndex: 9 });
      expect(plain(recovered.tail)).toEqual(plain(run(1, 9, 3)));
      // And it is over: a later start does not come back to it.
      place.makeCurrent(snapshot.state);
      expect(await reopen()).toMatchObject({ compacted: { index: 0 }, lastIndex: 9 });
    });

    test("an install that a crash stopped after the switch is finished at the next start", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(3, "n2"), entries: run(1, 9, 3) });
      await log.markInstall(snapshot);
      place.makeCurrent(snapshot.state);
      const recovered = await reopen();
      expect(recovered).toMatchObject({ compacted: { index: 20, term: 4 }, lastIndex: 20 });
      expect(recovered.tail).toEqual([]);
      // A log of a later term than its member would be a contradiction; the vote of term 3 binds nobody in 4.
      expect(recovered.hardState).toEqual(hard(4));
      expect(plain(recovered.foundations ?? [])).toEqual(plain(snapshot.foundations));
    });

    test("a snapshot of an entry that the log holds, or has forgotten, is refused", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(4), entries: run(1, 25, 4) });
      expect(await failure(log.markInstall(snapshot))).toContain("holds 1 to 25");
      await log.compact(asIndex(22), asTerm(4));
      expect(await failure(log.markInstall({ ...snapshot, term: asTerm(3) }))).toContain(
        "23 to 25",
      );
      expect(await failure(log.finishInstall())).toContain("no install is marked");
      expect((await reopen()).lastIndex).toBe(asIndex(25));
    });

    test("the folder is bound to one cluster for good", async () => {
      await log.open(TAIL_BYTES);
      await log.bindCluster("c1");
      await log.bindCluster("c1");
      expect((await reopen()).identity.clusterId).toBe("c1");
      expect(await failure(log.bindCluster("c2"))).toContain("belongs to cluster c1, not to c2");
      expect((await reopen()).identity.clusterId).toBe("c1");
    });

    test("another member's folder is refused and left as it is", async () => {
      await log.open(TAIL_BYTES);
      await log.close();
      log = place.store(asNodeId("n2"));
      const opening = log.open(TAIL_BYTES);
      expect(await failure(opening)).toContain("belongs to member n1, not to n2");
      await opening.catch((error: unknown) => expect(error).toBeInstanceOf(FatalError));
      log = place.store();
      expect((await log.open(TAIL_BYTES)).identity.boot).toBe(2);
    });

    test("a write that would leave a gap is told once as a failure, and nothing is answered any more", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(1), entries: run(1, 3, 1) });
      const failures: Error[] = [];
      const answered: string[] = [];
      const failed = new Promise<void>((resolve) => {
        log.onFailure((error) => {
          failures.push(error);
          resolve();
        });
      });
      log.append({ hardState: hard(9), entries: [entry(5, 1)] }, () => answered.push("gap"));
      await failed;
      log.append({ hardState: null, entries: [entry(4, 1)] }, () => answered.push("after"));
      await failure(log.read(asIndex(1), asIndex(1), 10));
      expect(failures).toHaveLength(1);
      expect(failures[0]?.message).toContain("entry 5 does not fit");
      expect(answered).toEqual([]);
      const recovered = await reopen();
      expect(recovered.hardState.term).toBe(asTerm(1));
      expect(recovered.lastIndex).toBe(asIndex(3));
    });

    test("a write below the compaction is a failure, not a second past", async () => {
      await log.open(TAIL_BYTES);
      await write(log, { hardState: hard(1), entries: run(1, 5, 1) });
      await log.compact(asIndex(3), asTerm(1));
      const failed = new Promise<Error>((resolve) => log.onFailure(resolve));
      log.append({ hardState: null, entries: [entry(3, 1)] }, () => {});
      expect((await failed).message).toContain("entry 3 does not fit");
    });

    test("close writes what was handed over before it", async () => {
      await log.open(TAIL_BYTES);
      log.append({ hardState: hard(1), entries: run(1, 20, 1) }, () => {});
      expect((await reopen()).lastIndex).toBe(asIndex(20));
    });

    test("the numbers count writes, transactions and what is held", async () => {
      await log.open(TAIL_BYTES);
      await Promise.all(
        Array.from({ length: 64 }, (_, i) => write(log, { entries: [entry(i + 1, 1)] })),
      );
      const { writes, transactions, entries, recentMs } = log.stats();
      expect(writes).toBe(64);
      expect(entries).toBe(64);
      // Gathered: 64 writes of one turn must not cost 64 syncs.
      expect(transactions).toBeLessThan(16);
      expect(recentMs).toHaveLength(transactions);
    });
  });
}

/** The message a promise fails with. */
export async function failure(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  throw new Error("it did not fail");
}
