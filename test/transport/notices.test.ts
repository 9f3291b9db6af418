import { expect, test } from "bun:test";
import type { Clock, Log } from "../../src/replica/ports.ts";
import { Notices } from "../../src/transport/notices.ts";

function setup(): {
  readonly notices: Notices;
  readonly logged: string[];
  readonly pass: (ms: number) => void;
} {
  let now = 1_000;
  const logged: string[] = [];
  const clock: Clock = {
    monotonic: () => now,
    wall: () => now,
    after: () => ({ cancel: () => {} }),
    soon: () => {},
  };
  const warn = (message: string): void => void logged.push(message);
  const log: Log = { debug: () => {}, info: () => {}, warn, error: warn };
  return { notices: new Notices(log, clock), logged, pass: (ms) => void (now += ms) };
}

test("a sentence is logged once in a while, another one at once", () => {
  const { notices, logged, pass } = setup();
  notices.warn("first", {});
  pass(29_999);
  notices.warn("first", {});
  notices.warn("second", {});
  expect(logged).toEqual(["first", "second"]);
  pass(1);
  notices.warn("first", {});
  expect(logged).toEqual(["first", "second", "first"]);
});

test("strangers with ever new sentences do not fill the log, nor silence it for good", () => {
  const { notices, logged, pass } = setup();
  for (let at = 0; at < 10_000; at++) notices.warn(`sentence ${at}`, {});
  expect(logged.length).toBe(50);
  expect(logged.at(-1)).toContain("left out");
  pass(30_000);
  notices.warn("later", {});
  expect(logged.at(-1)).toBe("later");
});
