import { describe, expect, test } from "bun:test";
import { LeaseEnder } from "../../src/executor/lease-ender.ts";
import type { ExecutorQueue } from "../../src/executor/queue-port.ts";
import { QueueError } from "../../src/queue/service.ts";
import type { LeaseEnd, LeaseEndAnswer, LeaseRef } from "../../src/queue/types.ts";
import type { Clock } from "../../src/replica/ports.ts";
import { FakeQueue, memoryLog } from "./fake-queue.ts";

type Item = LeaseRef & { end: LeaseEnd };

/** Time that only the test moves. */
function manualClock(): Clock & { readonly advance: (ms: number) => void } {
  let now = 0;
  let timers: { at: number; run: () => void }[] = [];
  return {
    monotonic: () => now,
    wall: () => now,
    after(delay, run) {
      const timer = { at: now + delay, run };
      timers.push(timer);
      return {
        cancel() {
          timers = timers.filter((other) => other !== timer);
        },
      };
    },
    soon: (run) => run(),
    advance(ms) {
      now += ms;
      const due = timers.filter((timer) => timer.at <= now);
      timers = timers.filter((timer) => timer.at > now);
      for (const timer of due) timer.run();
    },
  };
}

function setUp(
  answer: (items: readonly Item[]) => Promise<readonly LeaseEndAnswer[]>,
  callsMax = 100,
) {
  const calls: string[][] = [];
  const order: string[] = [];
  const base = new FakeQueue();
  const queue: ExecutorQueue = {
    claim: base.claim.bind(base),
    heartbeat: base.heartbeat.bind(base),
    onLease: base.onLease.bind(base),
    report(_worker, _principal, items) {
      order.push(`report ${items.map((item) => item.lines.join()).join(" ")}`);
      return Promise.resolve(items.map(() => "ok" as const));
    },
    end(_worker, _principal, items) {
      calls.push(items.map((item) => item.task_id));
      order.push(`end ${items.map((item) => item.task_id).join(" ")}`);
      return answer(items);
    },
  };
  const clock = manualClock();
  const log = memoryLog();
  const ender = new LeaseEnder(
    queue,
    "n1/1",
    clock,
    () => 0.5,
    log,
    () => {},
    () => callsMax,
  );
  return { ender, calls, order, clock, log };
}

const lease = (id: string): LeaseRef => ({ task_id: id, attempt: 1, fence: Number(id) });
const done: LeaseEnd = { kind: "complete", result: "1" };
const allOk = (items: readonly Item[]): Promise<readonly LeaseEndAnswer[]> =>
  Promise.resolve(items.map(() => "ok"));
const settle = (): Promise<void> => Bun.sleep(1);

describe("the lease ender", () => {
  test("what ends while enough calls wait for their answers leaves in one call when one is answered", async () => {
    const answers: (() => void)[] = [];
    const { ender, calls } = setUp((items) => {
      const { promise, resolve } = Promise.withResolvers<readonly LeaseEndAnswer[]>();
      answers.push(() => resolve(items.map(() => "ok")));
      return promise;
    }, 2);
    for (const id of ["1", "2", "3", "4"]) {
      ender.add(lease(id), done, null, 1_000);
      ender.flush();
    }
    expect(calls).toEqual([["1"], ["2"]]);
    answers[0]?.();
    await settle();
    ender.flush();
    expect(calls).toEqual([["1"], ["2"], ["3", "4"]]);
    expect(ender.unanswered).toBe(3);
  });

  test("what was taken on leaves in one call, after what it reported", async () => {
    const { ender, order } = setUp(allOk);
    ender.add(lease("1"), done, { progress: null, lines: ["last words"] }, 1_000);
    ender.add(lease("2"), done, null, 1_000);
    expect(ender.unanswered).toBe(2);
    ender.flush();
    await settle();
    expect(order).toEqual(["report last words", "end 1 2"]);
    expect(ender.unanswered).toBe(0);
  });

  test("ends that are refused as a whole are tried one by one, so that one bad end spoils no other", async () => {
    const { ender, calls, clock, log } = setUp((items) =>
      items.some((item) => item.task_id === "2")
        ? Promise.reject(new QueueError("not-found", "refused"))
        : allOk(items),
    );
    for (const id of ["1", "2", "3"]) ender.add(lease(id), done, null, 10_000);
    ender.flush();
    await settle();
    expect(ender.unanswered).toBe(3);
    clock.advance(1_000);
    await settle();
    expect(calls).toEqual([["1", "2", "3"], ["1"], ["2"], ["3"]]);
    expect(ender.unanswered).toBe(0);
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  });

  test("while a repeat is due newer ends wait for it, and the log lines are not said twice", async () => {
    let up = false;
    const { ender, order, clock } = setUp((items) =>
      up ? allOk(items) : Promise.reject(new QueueError("no-leader", "none")),
    );
    ender.add(lease("1"), done, { progress: null, lines: ["once"] }, 60_000);
    ender.flush();
    await settle();
    ender.add(lease("2"), done, null, 60_000);
    ender.flush();
    await settle();
    up = true;
    clock.advance(1_000);
    await settle();
    expect(order).toEqual(["report once", "end 1", "end 1 2"]);
    expect(ender.unansweredLeases()).toEqual([]);
  });

  test("an end is given up, aloud, once its lease is over for certain", async () => {
    const { ender, clock, log } = setUp(() => Promise.reject(new QueueError("no-leader", "none")));
    ender.add(lease("1"), done, null, 3_000);
    ender.flush();
    for (let round = 0; round < 10; round += 1) {
      await settle();
      clock.advance(1_000);
    }
    await settle();
    expect(ender.unanswered).toBe(0);
    expect(log.lines.some(({ message }) => message.includes("could not be recorded"))).toBe(true);
  });

  test("many or large ends are cut into several calls, and none is missing", async () => {
    const { ender, calls } = setUp(allOk);
    const ids = Array.from({ length: 1_200 }, (_, index) => String(index + 1));
    for (const id of ids) ender.add(lease(id), done, null, 1_000);
    ender.flush();
    expect(calls.map((call) => call.length)).toEqual([500, 500, 200]);
    expect(calls.flat()).toEqual(ids);
    calls.length = 0;
    const large: LeaseEnd = { kind: "complete", result: "x".repeat(900_000) };
    for (const id of ["1", "2", "3"]) ender.add(lease(id), large, null, 1_000);
    ender.flush();
    expect(calls).toEqual([["1", "2"], ["3"]]);
    await settle();
  });
});
