import { afterEach, describe, expect, test } from "bun:test";
import { ExecutorSlot, type RunEnding } from "../../src/executor/slot.ts";
import type { ClaimedTask } from "../../src/queue/types.ts";
import { FakeQueue, memoryLog, realClock } from "./fake-queue.ts";
import { FIXTURE } from "./pool-fixture.ts";

const slots: ExecutorSlot[] = [];

afterEach(async () => {
  await Promise.all(slots.splice(0).map((slot) => slot.stop()));
});

/**
 * A slot whose Worker is loaded, where there is room for one, and what it said, in order: `NAME outcome|crashed|killed`,
 * `NAME returned`.
 */
async function slotOf(names: readonly string[], mayStart = () => true) {
  const said: string[] = [];
  const endings: RunEnding[] = [];
  const changes = new Set<() => void>();
  const changed = (): void => {
    for (const look of changes) look();
  };
  const queue = new FakeQueue();
  const slot = new ExecutorSlot(
    {
      handlers: { kind: "module", path: FIXTURE, builtin: [] },
      ioRoots: [],
      allowNet: [],
    },
    realClock,
    memoryLog(),
    () => 1_024,
    1_000,
    mayStart,
    {
      report: () => undefined,
      ended(task, ending) {
        said.push(`${task.name} ${ending.kind}`);
        endings.push(ending);
        changed();
      },
      returned(tasks) {
        said.push(...tasks.map((task) => `${task.name} returned`));
        changed();
      },
      changed,
      killed: () => undefined,
      restarted: () => undefined,
      stuck: () => true,
      unstuck: () => undefined,
    },
  );
  slots.push(slot);
  const until = async (holds: () => boolean, what: string): Promise<void> => {
    const giveUpAt = performance.now() + 10_000;
    while (!holds()) {
      if (performance.now() > giveUpAt)
        throw new Error(`waited in vain for ${what}: ${said.join()}`);
      await Bun.sleep(2);
    }
  };
  if (mayStart()) {
    slot.warm();
    await until(() => slot.depth > 1, "the Worker to load");
  }
  for (const name of names) queue.add(name, { n: 1, ms: 1 });
  const { tasks } = await queue.claim(
    {
      worker_id: "w",
      principal: "p",
      request_id: "r",
      queues: null,
      names: null,
      star: false,
      max: 100,
      local: null,
    },
    1_000,
    null,
  );
  const given = tasks as readonly [ClaimedTask, ...ClaimedTask[]];
  return { slot, tasks: given, said, endings, until };
}

describe("tasks that a slot is given at once", () => {
  test("run one after another, and the slot is free when all of them have ended", async () => {
    const { slot, tasks, said, endings, until } = await slotOf([
      "double",
      "wait",
      "throws",
      "double",
    ]);
    slot.run(tasks);
    expect(slot.free).toBe(false);
    await until(() => slot.free, "the end");
    expect(said).toEqual(["double outcome", "wait outcome", "throws outcome", "double outcome"]);
    expect(endings.map((ending) => ending.kind === "outcome" && ending.outcome.kind)).toEqual([
      "result",
      "result",
      "error",
      "result",
    ]);
    for (const ending of endings) {
      expect(ending.kind === "outcome" && (ending.ranMs ?? -1) >= 0).toBe(true);
    }
  });

  test("do not wait behind one that takes long: they are taken back, and not run", async () => {
    const { slot, tasks, said, until } = await slotOf(["double", "spin", "double", "wait"]);
    slot.run(tasks);
    // What ended before the one that never yields is heard.
    await until(() => said.length === 1, "the first end");
    await until(() => slot.look() > 2, "the stall to be seen");
    slot.takeBack();
    expect(said).toEqual(["double outcome", "double returned", "wait returned"]);
    expect(slot.look()).toBe(0);
    expect(slot.free).toBe(false);
    slot.kill(tasks[1] ?? tasks[0]);
    await until(() => said.length === 4, "the kill");
    expect(said.at(-1)).toBe("spin killed");
    await until(() => slot.free, "another Worker");
  });

  test("one that takes its Worker down is charged alone", async () => {
    const { slot, tasks, said, until } = await slotOf(["double", "exits", "double"]);
    slot.run(tasks);
    await until(() => said.length === 3, "the crash");
    expect(said.toSorted()).toEqual(["double outcome", "double returned", "exits crashed"]);
    await until(() => slot.free, "another Worker");
  });

  test("one that waits cannot be killed under another", async () => {
    const { slot, tasks, said, until } = await slotOf(["abortable", "double"]);
    const [first, second] = tasks;
    slot.run(tasks);
    await until(() => slot.holds(first), "the first to be entered");
    expect(slot.holds(second ?? first)).toBe(false);
    slot.kill(second ?? first);
    expect(said).toEqual(["double returned"]);
    slot.abort(first, "enough");
    await until(() => slot.free, "the abort");
    expect(said).toEqual(["double returned", "abortable outcome"]);
  });
});

test("while the process has no room for a Worker a task goes back at once, and no other is taken until there is room", async () => {
  let hasRoom = false;
  const { slot, tasks, said, until } = await slotOf(["double", "double"], () => hasRoom);
  const [first, second] = tasks;
  expect(slot.free).toBe(true);
  slot.run([first]);
  expect(said).toEqual(["double not-started"]);
  expect([slot.free, slot.holds(first), slot.blocked]).toEqual([false, false, false]);
  hasRoom = true;
  await until(() => slot.free, "a Worker");
  slot.run([second ?? first]);
  await until(() => said.length === 2, "the end of the second");
  expect(said).toEqual(["double not-started", "double outcome"]);
});
