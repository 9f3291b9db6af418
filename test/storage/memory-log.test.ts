import { expect, test } from "bun:test";
import { asIndex } from "../../src/raft/types.ts";
import { MemoryFolder, MemoryLog } from "../../src/storage/memory-log.ts";
import { systemClock } from "../../src/system/clock.ts";
import { entry, MEMBER, write } from "./entries.ts";
import { logSuite } from "./log-suite.ts";

logSuite("in memory", () => {
  const folder = new MemoryFolder(MEMBER, "abc");
  return {
    store: (member = MEMBER) => new MemoryLog({ clock: systemClock, folder, member }),
    makeCurrent: (state) => {
      folder.currentState = state;
    },
    remove: () => {},
  };
});

test("the delay is asked anew for each transaction, and writes wait for it in order", async () => {
  const delays = [20, 1];
  const asked: number[] = [];
  const log = new MemoryLog({
    clock: systemClock,
    folder: new MemoryFolder(MEMBER, "abc"),
    member: MEMBER,
    latencyMs: () => {
      const delay = delays.shift() ?? 0;
      asked.push(delay);
      return delay;
    },
  });
  await log.open(1_000);
  const order: number[] = [];
  const first = write(log, { entries: [entry(1, 1)] }).then(() => {
    order.push(1);
    return write(log, { entries: [entry(3, 1)] }).then(() => order.push(3));
  });
  const second = write(log, { entries: [entry(2, 1)] }).then(() => order.push(2));
  await Promise.all([first, second]);
  expect(order).toEqual([1, 2, 3]);
  expect(asked).toEqual([20, 1]);
  expect(await log.read(asIndex(1), asIndex(3), 1_000)).toHaveLength(3);
  await log.close();
});
