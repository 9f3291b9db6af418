import { fullGC } from "bun:jsc";
import { expect, test } from "bun:test";
import { EntryCache } from "../../src/raft/entry-cache.ts";
import { asIndex, asTerm, INDEX_0 } from "../../src/raft/types.ts";

const DATA_BYTES = 100_000;

/** Appends entries and evicts all but the newest ones; answers them weakly. */
function passed(cache: EntryCache, entries: number): WeakRef<Uint8Array>[] {
  const all: WeakRef<Uint8Array>[] = [];
  for (let index = 1; index <= entries; index++) {
    const data = new Uint8Array(DATA_BYTES);
    all.push(new WeakRef(data));
    cache.append({ index: asIndex(index), term: asTerm(1), kind: "command", data });
    cache.evict(asIndex(index), 10 * DATA_BYTES);
  }
  return all;
}

test("an entry that was evicted is not held any more, however few were evicted before", async () => {
  const cache = new EntryCache(INDEX_0, []);
  const all = passed(cache, 300);
  // A weak reference holds until the end of the turn in which it was made.
  await Bun.sleep(1);
  fullGC();
  const alive = all.filter((one) => one.deref() !== undefined).length;
  // Some may be held by what lies on the stack.
  expect(alive).toBeLessThan(20);
  expect(cache.bytes).toBeLessThanOrEqual(10 * DATA_BYTES);
  expect(cache.get(cache.first)?.data).toHaveLength(DATA_BYTES);
});
