/** The log against a model that keeps every entry in an array. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { RaftLog } from "../../src/raft/log.ts";
import { asIndex, asTerm, type Entry, type PersistOp, TERM_0 } from "../../src/raft/types.ts";

const CACHE_BYTES = 500;

function entry(index: number, term: number, bytes: number): Entry {
  return {
    index: asIndex(index),
    term: asTerm(term),
    kind: "command",
    data: new Uint8Array(bytes),
  };
}

function emptyLog(): RaftLog {
  return new RaftLog(
    {
      hardState: { term: TERM_0, vote: null },
      compacted: { index: asIndex(0), term: TERM_0 },
      terms: [],
      lastIndex: asIndex(0),
      tail: [],
      configurations: [],
      snapshotConfiguration: null,
      applied: asIndex(0),
    },
    CACHE_BYTES,
  );
}

const steps = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant("append" as const),
        newTerm: fc.boolean(),
        bytes: fc.nat(200),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant("overwrite" as const),
        back: fc.integer({ min: 1, max: 4 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant("repeat" as const),
        back: fc.integer({ min: 1, max: 6 }),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("hand" as const) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("ack" as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("commit" as const), ahead: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("compact" as const), behind: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("drop" as const) }) },
  ),
  { maxLength: 80 },
);

describe("the log", () => {
  test("keeps terms, cache and durability as a naive log does, and loses nothing that is not on disk", () => {
    fc.assert(
      fc.property(steps, (list) => {
        const log = emptyLog();
        const model: Entry[] = [];
        const disk: Entry[] = [];
        const handed: PersistOp[] = [];
        let compacted = 0;
        let term = 1;
        for (const step of list) {
          switch (step.do) {
            case "append": {
              if (step.newTerm) term += 1;
              const next = entry(model.length + 1, term, step.bytes);
              log.append(next);
              model.push(next);
              break;
            }
            case "overwrite": {
              const from = model.length - step.back + 1;
              if (from <= log.commit) break;
              term += 1;
              const other = entry(from, term, 10);
              expect(log.merge([other])).toBe(from <= model.length ? other.index : null);
              model.length = from - 1;
              model.push(other);
              break;
            }
            case "repeat": {
              // An append of old: a piece of the log from its middle. It must not shorten anything.
              const from = Math.max(compacted, model.length - step.back);
              expect(log.merge(model.slice(from, from + 2))).toBeNull();
              break;
            }
            case "hand": {
              const op = log.takeWrite(null, 0);
              if (op !== null) handed.push(op);
              break;
            }
            case "ack": {
              const op = handed.shift();
              const last = op?.entries.at(-1);
              if (op === undefined || last === undefined) break;
              disk.length = (op.entries[0]?.index ?? 1) - 1;
              disk.push(...op.entries);
              log.persisted({ hardState: null, last: { index: last.index, term: last.term } });
              break;
            }
            case "commit":
              log.commitTo(asIndex(Math.min(model.length, log.commit + step.ahead)));
              log.appliedTo(log.applicable);
              break;
            case "compact":
              compacted = Math.max(compacted, log.applied - step.behind);
              log.compactTo(asIndex(compacted));
              break;
            case "drop": {
              const before = log.cachedFrom;
              log.dropCache();
              // What is applied, and nothing else: the rest is asked for soon.
              expect(log.cachedFrom).toBe(asIndex(Math.max(before, log.applied + 1)));
              break;
            }
          }
          check(log, model, disk, compacted);
        }
      }),
      { numRuns: 400 },
    );
  });

  test("the place where two logs could agree is found as by walking back", () => {
    const terms = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(terms, fc.nat(14), fc.nat(14), (rises, index, term) => {
        const log = emptyLog();
        let at = 1;
        rises.forEach((rise, i) => {
          at += rise;
          log.append(entry(i + 1, at, 0));
        });
        let expected = Math.min(index, rises.length);
        while (expected > 0 && (log.termAt(asIndex(expected)) ?? 0) > term) expected -= 1;
        expect(log.lastAtMost(asIndex(index), asTerm(term)).index).toBe(asIndex(expected));
      }),
      { numRuns: 400 },
    );
  });

  test("a committed entry is never truncated: it stops the member", () => {
    const log = emptyLog();
    log.append(entry(1, 1, 0));
    log.commitTo(asIndex(1));
    expect(() => log.merge([entry(1, 2, 0)])).toThrow("a committed entry would be truncated");
  });

  test("a snapshot behind the commit index is refused", () => {
    const log = emptyLog();
    log.append(entry(1, 1, 0));
    log.commitTo(asIndex(1));
    const configuration = log.configuration;
    expect(() => log.restart({ index: asIndex(1), term: asTerm(1), configuration })).toThrow(
      "snapshot",
    );
  });
});

function check(
  log: RaftLog,
  model: readonly Entry[],
  disk: readonly Entry[],
  compacted: number,
): void {
  expect(log.last).toBe(asIndex(model.length));
  expect(log.lastTerm).toBe(model.at(-1)?.term ?? TERM_0);
  for (let index = 0; index <= model.length + 1; index++) {
    const term = index === 0 ? TERM_0 : (model[index - 1]?.term ?? null);
    expect(log.termAt(asIndex(index))).toBe(index < compacted ? null : term);
  }
  // Durable is what the disk holds of THIS log, or less: never an entry that was overwritten on its way.
  for (let index = 1; index <= log.durable; index++)
    expect(disk[index - 1]?.term).toBe(model[index - 1]?.term as never);
  for (let index = log.durable + 1; index <= model.length; index++)
    expect(log.slice(asIndex(index), asIndex(index))?.[0]).toBe(model[index - 1] as Entry);
  const cached = log.slice(log.cachedFrom, log.last) ?? [];
  expect(cached).toEqual(model.slice(log.cachedFrom - 1));
  const bytes = cached
    .filter(({ index }) => index <= log.durable)
    .reduce((sum, { data }) => sum + data.length + 64, 0);
  // Beyond the limit only what cannot be evicted: it is not durable; evicted at the next acknowledgement.
  if (log.undurableBytes === 0) expect(bytes).toBeLessThanOrEqual(CACHE_BYTES);
}
