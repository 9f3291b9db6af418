/**
 * What every log store must do, whatever it keeps the log in. A store's own test calls this with a factory
 * and adds what only it can get wrong.
 */
import { describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type NodeId } from "../../src/raft/types.ts";
import { FatalError, type LogStore, type RecoveredLog } from "../../src/replica/ports.ts";
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

/** One place, and the store that is open on it. */
class OpenLog {
  log: LogStore;

  constructor(readonly place: LogPlace) {
    this.log = place.store();
  }

  async reopen(tailBytes = TAIL_BYTES): Promise<RecoveredLog> {
    await this.log.close();
    this.log = this.place.store();
    return this.log.open(tailBytes);
  }
}

/** Each test has a place for itself: what a real disk costs is waiting, so all run at the same time. */
export function logSuite(name: string, createPlace: () => LogPlace): void {
  describe(`a log store: ${name}`, () => {
    function each(what: string, run: (at: OpenLog) => Promise<void>): void {
      test.concurrent(what, async () => {
        const at = new OpenLog(createPlace());
        try {
          await run(at);
        } finally {
          await at.log.close();
          at.place.remove();
        }
      });
    }

    each("a new log is empty, unbound, and has an incarnation of its own", async (at) => {
      const recovered = await at.log.open(TAIL_BYTES);
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

    each("boots are counted and the incarnation stays", async (at) => {
      const first = await at.log.open(TAIL_BYTES);
      await at.reopen();
      const third = await at.reopen();
      expect(third.identity.boot).toBe(3);
      expect(third.identity.incarnation).toBe(first.identity.incarnation);
    });

    each("entries, term and vote come back as they were written", async (at) => {
      await at.log.open(TAIL_BYTES);
      const written = [
        entry(1, 1, "founding", "bootstrap"),
        entry(2, 1, new Uint8Array(0), "noop"),
        entry(3, 2, new Uint8Array([0, 255, 0, 1]).subarray(1, 3)),
        entry(4, 2, "members", "config"),
      ];
      await write(at.log, { hardState: hard(2, "n3"), entries: written });
      const recovered = await at.reopen();
      expect(recovered.hardState).toEqual(hard(2, "n3"));
      expect(recovered.lastIndex).toBe(asIndex(4));
      expect(plain(recovered.tail)).toEqual(plain(written));
      expect(recovered.terms).toEqual([
        { index: asIndex(1), term: asTerm(1) },
        { index: asIndex(3), term: asTerm(2) },
      ]);
      expect(recovered.configurations.map(({ index }) => Number(index))).toEqual([1, 4]);
    });

    each("a vote for nobody is not a vote for an empty name", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(5, "n2") });
      await write(at.log, { hardState: hard(6) });
      expect((await at.reopen()).hardState).toEqual(hard(6, null));
    });

    each(
      "acknowledgements come in the order of the calls and name what they are for",
      async (at) => {
        await at.log.open(TAIL_BYTES);
        const acks: string[] = [];
        const note = (ack: Awaited<ReturnType<typeof write>>): void => {
          acks.push(
            `${ack.hardState?.term ?? "-"} ${ack.last?.index ?? "-"}/${ack.last?.term ?? "-"}`,
          );
        };
        await Promise.all([
          write(at.log, { hardState: hard(1) }).then(note),
          write(at.log, { entries: run(1, 3, 1) }).then(note),
          write(at.log, { hardState: hard(2), entries: [entry(3, 2)] }).then(note),
          write(at.log, {}).then(note),
        ]);
        expect(acks).toEqual(["1 -/-", "- 3/1", "2 3/2", "- -/-"]);
      },
    );

    each("an append replaces everything at and beyond its first index", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(1), entries: run(1, 9, 1) });
      await write(at.log, { hardState: hard(2), entries: [entry(4, 2), entry(5, 2)] });
      const expected = [...run(1, 3, 1), entry(4, 2), entry(5, 2)];
      expect(plain(await at.log.read(asIndex(1), asIndex(99), TAIL_BYTES))).toEqual(
        plain(expected),
      );
      const recovered = await at.reopen();
      expect(recovered.lastIndex).toBe(asIndex(5));
      expect(plain(recovered.tail)).toEqual(plain(expected));
    });

    each("a read sees every write that was handed over before it", async (at) => {
      await at.log.open(TAIL_BYTES);
      for (let i = 1; i <= 50; i++)
        at.log.append({ hardState: null, entries: [entry(i, 1)] }, () => {});
      const read = await at.log.read(asIndex(40), asIndex(50), TAIL_BYTES);
      expect(plain(read)).toEqual(plain(run(40, 50, 1)));
    });

    each(
      "a read is cut before its bytes exceed the limit, but holds at least one entry",
      async (at) => {
        await at.log.open(TAIL_BYTES);
        const entries = [1, 2, 3, 4].map((i) => entry(i, 1, new Uint8Array(100)));
        await write(at.log, { entries });
        expect(await at.log.read(asIndex(1), asIndex(4), 250)).toHaveLength(2);
        expect(await at.log.read(asIndex(1), asIndex(4), 300)).toHaveLength(3);
        expect(await at.log.read(asIndex(1), asIndex(4), 1)).toHaveLength(1);
        expect(await at.log.read(asIndex(3), asIndex(3), 1_000)).toHaveLength(1);
      },
    );

    each("a read beyond the end or below the compaction finds nothing", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(1), entries: run(1, 10, 1) });
      await at.log.compact(asIndex(4), asTerm(1));
      expect(await at.log.read(asIndex(11), asIndex(20), 1_000)).toEqual([]);
      expect(await at.log.read(asIndex(4), asIndex(6), 1_000)).toEqual([]);
      expect(await at.log.read(asIndex(5), asIndex(6), 1_000)).toHaveLength(2);
    });

    each("the tail is the newest entries that fit, in order", async (at) => {
      await at.log.open(TAIL_BYTES);
      const entries = Array.from({ length: 40 }, (_, i) => entry(i + 1, 1, new Uint8Array(100)));
      await write(at.log, { hardState: hard(1), entries });
      const { tail, lastIndex } = await at.reopen(1_050);
      expect(lastIndex).toBe(asIndex(40));
      expect(tail.map(({ index }) => Number(index))).toEqual(
        Array.from({ length: 10 }, (_, i) => i + 31),
      );
    });

    each("compaction forgets the beginning and remembers index and term of its end", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(3), entries: [...run(1, 5, 1), ...run(6, 12, 3)] });
      await at.log.compact(asIndex(6), asTerm(3));
      expect(at.log.stats().entries).toBe(6);
      const recovered = await at.reopen();
      expect(recovered.compacted).toEqual({ index: asIndex(6), term: asTerm(3) });
      expect(recovered.terms).toEqual([{ index: asIndex(7), term: asTerm(3) }]);
      expect(plain(recovered.tail)).toEqual(plain(run(7, 12, 3)));
      await write(at.log, { entries: [entry(13, 3)] });
      expect((await at.reopen()).lastIndex).toBe(asIndex(13));
    });

    each("a log that is compacted up to its end goes on behind it", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(2), entries: run(1, 5, 2) });
      await at.log.compact(asIndex(5), asTerm(2));
      const recovered = await at.reopen();
      expect(recovered).toMatchObject({ lastIndex: 5, tail: [], terms: [] });
      await write(at.log, { entries: [entry(6, 2)] });
      expect((await at.reopen()).lastIndex).toBe(asIndex(6));
    });

    each("compaction keeps the founding and the newest membership that it forgets", async (at) => {
      await at.log.open(TAIL_BYTES);
      const entries = [
        entry(1, 1, "founding", "bootstrap"),
        entry(2, 1, "first", "config"),
        entry(3, 1),
        entry(4, 1, "second", "config"),
        entry(5, 1),
        entry(6, 1, "third", "config"),
      ];
      await write(at.log, { hardState: hard(1), entries });
      await at.log.compact(asIndex(2), asTerm(1));
      await at.log.compact(asIndex(5), asTerm(1));
      const recovered = await at.reopen();
      expect(recovered.foundations?.map(({ index }) => Number(index))).toEqual([1, 4]);
      expect(recovered.configurations.map(({ index }) => Number(index))).toEqual([6]);
    });

    each("a compaction again, or further back, changes nothing", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(1), entries: run(1, 10, 1) });
      await at.log.compact(asIndex(5), asTerm(1));
      await at.log.compact(asIndex(5), asTerm(1));
      await at.log.compact(asIndex(2), asTerm(1));
      expect((await at.reopen()).compacted).toEqual({ index: asIndex(5), term: asTerm(1) });
    });

    each(
      "a compaction beyond the end, or with another term, is refused and forgets nothing",
      async (at) => {
        await at.log.open(TAIL_BYTES);
        await write(at.log, { hardState: hard(2), entries: run(1, 5, 1) });
        expect(await failure(at.log.compact(asIndex(6), asTerm(1)))).toContain("the log ends at 5");
        expect(await failure(at.log.compact(asIndex(3), asTerm(2)))).toContain(
          "its term here is 1",
        );
        const recovered = await at.reopen();
        expect(recovered.compacted.index).toBe(asIndex(0));
        expect(recovered.tail).toHaveLength(5);
      },
    );

    const snapshot = {
      index: asIndex(20),
      term: asTerm(4),
      state: "state-20-aa.db",
      foundations: [
        entry(1, 1, "founding", "bootstrap"),
        entry(20, 4, "members as of 20", "config"),
      ],
    };

    each(
      "an install that is finished replaces everything held, what lies behind it too",
      async (at) => {
        await at.log.open(TAIL_BYTES);
        // Longer than the snapshot, and of another term there: a suffix that was kept would diverge.
        await write(at.log, {
          hardState: hard(5, "n2"),
          entries: [entry(1, 1, "founding", "bootstrap"), ...run(2, 25, 3)],
        });
        await at.log.markInstall(snapshot);
        at.place.makeCurrent(snapshot.state);
        await at.log.finishInstall();
        expect(at.log.stats().entries).toBe(0);
        await write(at.log, { entries: [entry(21, 5)] });
        const recovered = await at.reopen();
        expect(recovered).toMatchObject({
          compacted: { index: 20, term: 4 },
          lastIndex: 21,
          hardState: { term: 5, vote: "n2" },
          configurations: [],
        });
        expect(plain(recovered.foundations ?? [])).toEqual(plain(snapshot.foundations));
      },
    );

    each("an install that a crash stopped before the switch never happened", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(3), entries: run(1, 9, 3) });
      await at.log.markInstall(snapshot);
      const recovered = await at.reopen();
      expect(recovered).toMatchObject({ compacted: { index: 0 }, lastIndex: 9 });
      expect(plain(recovered.tail)).toEqual(plain(run(1, 9, 3)));
      // And it is over: a later start does not come back to it.
      at.place.makeCurrent(snapshot.state);
      expect(await at.reopen()).toMatchObject({ compacted: { index: 0 }, lastIndex: 9 });
    });

    each(
      "an install that a crash stopped after the switch is finished at the next start",
      async (at) => {
        await at.log.open(TAIL_BYTES);
        await write(at.log, { hardState: hard(3, "n2"), entries: run(1, 9, 3) });
        await at.log.markInstall(snapshot);
        at.place.makeCurrent(snapshot.state);
        const recovered = await at.reopen();
        expect(recovered).toMatchObject({ compacted: { index: 20, term: 4 }, lastIndex: 20 });
        expect(recovered.tail).toEqual([]);
        // A log of a later term than its member would be a contradiction; the vote of term 3 binds nobody in 4.
        expect(recovered.hardState).toEqual(hard(4));
        expect(plain(recovered.foundations ?? [])).toEqual(plain(snapshot.foundations));
      },
    );

    each("a snapshot of an entry that the log holds, or has forgotten, is refused", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(4), entries: run(1, 25, 4) });
      expect(await failure(at.log.markInstall(snapshot))).toContain("holds 1 to 25");
      await at.log.compact(asIndex(22), asTerm(4));
      expect(await failure(at.log.markInstall({ ...snapshot, term: asTerm(3) }))).toContain(
        "23 to 25",
      );
      expect(await failure(at.log.finishInstall())).toContain("no install is marked");
      expect((await at.reopen()).lastIndex).toBe(asIndex(25));
    });

    each("the folder is bound to one cluster for good", async (at) => {
      await at.log.open(TAIL_BYTES);
      await at.log.bindCluster("c1");
      await at.log.bindCluster("c1");
      expect((await at.reopen()).identity.clusterId).toBe("c1");
      expect(await failure(at.log.bindCluster("c2"))).toContain("belongs to cluster c1, not to c2");
      expect((await at.reopen()).identity.clusterId).toBe("c1");
    });

    each("another member's folder is refused and left as it is", async (at) => {
      await at.log.open(TAIL_BYTES);
      await at.log.close();
      at.log = at.place.store(asNodeId("n2"));
      const opening = at.log.open(TAIL_BYTES);
      expect(await failure(opening)).toContain("belongs to member n1, not to n2");
      await opening.catch((error: unknown) => expect(error).toBeInstanceOf(FatalError));
      at.log = at.place.store();
      expect((await at.log.open(TAIL_BYTES)).identity.boot).toBe(2);
    });

    each(
      "a write that would leave a gap is told once as a failure, and nothing is answered any more",
      async (at) => {
        await at.log.open(TAIL_BYTES);
        await write(at.log, { hardState: hard(1), entries: run(1, 3, 1) });
        const failures: Error[] = [];
        const answered: string[] = [];
        const failed = new Promise<void>((resolve) => {
          at.log.onFailure((error) => {
            failures.push(error);
            resolve();
          });
        });
        at.log.append({ hardState: hard(9), entries: [entry(5, 1)] }, () => answered.push("gap"));
        await failed;
        at.log.append({ hardState: null, entries: [entry(4, 1)] }, () => answered.push("after"));
        await failure(at.log.read(asIndex(1), asIndex(1), 10));
        expect(failures).toHaveLength(1);
        expect(failures[0]?.message).toContain("entry 5 does not fit");
        expect(answered).toEqual([]);
        const recovered = await at.reopen();
        expect(recovered.hardState.term).toBe(asTerm(1));
        expect(recovered.lastIndex).toBe(asIndex(3));
      },
    );

    each("a write below the compaction is a failure, not a second past", async (at) => {
      await at.log.open(TAIL_BYTES);
      await write(at.log, { hardState: hard(1), entries: run(1, 5, 1) });
      await at.log.compact(asIndex(3), asTerm(1));
      const failed = new Promise<Error>((resolve) => at.log.onFailure(resolve));
      at.log.append({ hardState: null, entries: [entry(3, 1)] }, () => {});
      expect((await failed).message).toContain("entry 3 does not fit");
    });

    each("close writes what was handed over before it", async (at) => {
      await at.log.open(TAIL_BYTES);
      at.log.append({ hardState: hard(1), entries: run(1, 20, 1) }, () => {});
      expect((await at.reopen()).lastIndex).toBe(asIndex(20));
    });

    each("the numbers count writes, transactions and what is held", async (at) => {
      await at.log.open(TAIL_BYTES);
      await Promise.all(
        Array.from({ length: 64 }, (_, i) => write(at.log, { entries: [entry(i + 1, 1)] })),
      );
      const { writes, transactions, entries, recentMs } = at.log.stats();
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
