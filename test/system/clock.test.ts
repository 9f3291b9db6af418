import { expect, test } from "bun:test";
import { join } from "node:path";
import { catchUp, lookInBetween, systemClock } from "../../src/system/clock.ts";

/** Longer than a turn may take, or one that brought many requests. */
function longTurn(ms = 110): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

/** Whatever ran before this test. */
function turnEnds(): Promise<void> {
  return new Promise((resolve) => systemClock.soon(resolve));
}

test("a turn that goes on for long runs what is due in between, in its order and once", async () => {
  await turnEnds();
  const ran: string[] = [];
  const cancelled = systemClock.after(1, () => ran.push("cancelled"));
  const byAnother = systemClock.after(12, () => ran.push("cancelled by another"));
  systemClock.after(10, () => ran.push("second"));
  systemClock.after(5, () => {
    ran.push("first");
    byAnother.cancel();
  });
  // What is not due waits.
  systemClock.after(1_000, () => ran.push("long"));
  systemClock.soon(() => {
    ran.push("soon");
    systemClock.soon(() => ran.push("soon after"));
  });
  cancelled.cancel();
  longTurn();
  catchUp();
  expect(ran).toEqual(["soon", "first", "second"]);
  longTurn();
  catchUp();
  expect(ran).toEqual(["soon", "first", "second", "soon after"]);
  await Bun.sleep(1_100);
  expect(ran).toEqual(["soon", "first", "second", "soon after", "long"]);
});

test("a turn that lasts runs timers that are due in it, however long they were set", async () => {
  await turnEnds();
  const ran: string[] = [];
  systemClock.after(200, () => ran.push("second"));
  systemClock.after(150, () => {
    ran.push("first");
    cancelled.cancel();
  });
  const cancelled = systemClock.after(250, () => ran.push("cancelled"));
  systemClock.after(60_000, () => ran.push("later")).cancel();
  longTurn(600);
  catchUp();
  expect(ran).toEqual(["first", "second"]);
  await Bun.sleep(50);
  expect(ran).toHaveLength(2);
});

test("a turn that goes on for long looks at what other threads have done, before what gathers leaves", () => {
  const ran: string[] = [];
  const lookNoMore = lookInBetween(() => {
    if (ran.length === 0) systemClock.soon(() => ran.push("what came of it"));
    ran.push("looked");
  });
  longTurn();
  catchUp();
  expect(ran).toEqual(["looked", "what came of it"]);
  lookNoMore();
  longTurn();
  catchUp();
  expect(ran).toHaveLength(2);
});

test("a turn that brings hundreds of requests may not take as long", async () => {
  const ran: string[] = [];
  systemClock.soon(() => ran.push("soon"));
  longTurn(25);
  for (let call = 0; call < 2_000; call++) catchUp();
  expect(ran).toEqual(["soon"]);
});

test("a short turn is left alone: what gathers goes on gathering", async () => {
  const ran: string[] = [];
  await turnEnds();
  systemClock.soon(() => ran.push("soon"));
  catchUp();
  const isYoung = ran.length === 0;
  await new Promise<void>((resolve) => systemClock.soon(resolve));
  expect(ran).toEqual(["soon"]);
  // On a machine that stood still for a tenth of a second between two lines the turn was a long one.
  if (!isYoung) console.log("the machine stood still: nothing was tested");
});

test("what throws in between ends the process, and not the request that was served just then", async () => {
  const clock = join(import.meta.dir, "../../src/system/clock.ts");
  const script = `
    import { catchUp, systemClock } from ${JSON.stringify(clock)};
    systemClock.soon(() => { throw new Error("a fault"); });
    systemClock.soon(() => console.log("the rest"));
    const until = performance.now() + 110;
    while (performance.now() < until);
    catchUp();
    console.log("served");
    process.on("uncaughtException", (error) => console.log("uncaught", error.message));
  `;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const said = await new Response(child.stdout).text();
  expect(said.trim().split("\n")).toEqual(["served", "uncaught a fault", "the rest"]);
});
