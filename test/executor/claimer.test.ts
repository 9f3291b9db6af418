import { describe, expect, test } from "bun:test";
import { Claimer } from "../../src/executor/claimer.ts";
import { EXECUTOR_PRINCIPAL } from "../../src/executor/queue-port.ts";
import { NodeClock, World } from "../sim/world.ts";
import { FakeQueue, memoryLog } from "./fake-queue.ts";

/** A claimer in virtual time; `room`: null: none may wait ahead of a slot. */
function setUp() {
  const world = new World(1);
  const clock = new NodeClock(world);
  const queue = new FakeQueue();
  const room = { free: 0, ahead: null as { room: number; left: number } | null };
  const claimer: Claimer = new Claimer(
    queue,
    {
      worker_id: "n1/1",
      principal: EXECUTOR_PRINCIPAL,
      queues: null,
      names: ["n"],
      star: false,
      local: null,
    },
    clock,
    () => 0.5,
    memoryLog(),
    {
      free: () => room.free,
      ahead: () => room.ahead,
      claimed: () => undefined,
      directive: () => undefined,
      uncovered: () => claimer.cover(),
    },
  );
  const claims = (): [max: number, ahead: boolean][] =>
    queue.claims.map(({ max, ahead }) => [max, ahead === true]);
  return { world, claimer, room, claims };
}

describe("the claimer", () => {
  test("claims for each slot that comes free at once while runs are long", () => {
    const { claimer, room, claims } = setUp();
    for (room.free = 1; room.free <= 3; room.free++) claimer.cover();
    expect(claims()).toEqual([
      [1, false],
      [1, false],
      [1, false],
    ]);
  });

  test("gathers slots that come free within 2 ms while runs are short, and forgets none", async () => {
    const { world, claimer, room, claims } = setUp();
    room.ahead = { room: 100, left: 0 };
    for (room.free = 1; room.free <= 4; room.free++) claimer.cover();
    expect(claims()).toEqual([[1, false]]);
    room.free = 4;
    await world.run(world.now + 5);
    expect(claims()).toEqual([
      [1, false],
      [3, false],
    ]);
  });

  test("claims ahead for no less than a quarter of the room", () => {
    const { claimer, room, claims } = setUp();
    for (let left = 1; left <= 60; left++) {
      room.ahead = { room: 100, left };
      claimer.cover();
    }
    expect(claims()).toEqual([
      [25, true],
      [25, true],
    ]);
    room.ahead = { room: 2, left: 51 };
    claimer.cover();
    expect(claims().at(-1)).toEqual([1, true]);
  });
});
