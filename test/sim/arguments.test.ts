import { expect, test } from "bun:test";
import { parseOverride, SEED_MAX, UsageError, whole } from "./arguments.ts";

test("numbers are whole, within their bounds, and nothing else", () => {
  expect(whole("0", "seed", 0, SEED_MAX)).toBe(0);
  expect(whole("4294967295", "seed", 0, SEED_MAX)).toBe(SEED_MAX);
  for (const text of ["", " ", "1.5", "-1", "1e3", "0x1", "4294967296", "9007199254740993"])
    expect(() => whole(text, "seed", 0, SEED_MAX)).toThrow(UsageError);
  expect(() => whole("0", "jobs", 1, 8)).toThrow(
    '--jobs takes a whole number from 1 to 8, not "0"',
  );
});

test("an override holds what a run can be given, and nothing that nobody knows", () => {
  const text = '{"members":2,"families":["loss","rot-and-lag"],"concurrency":[0,3],"clears":true}';
  expect(JSON.stringify(parseOverride(text))).toBe(text);
  expect(parseOverride("{}")).toEqual({});
  for (const [wrong, said] of [
    ["nonsense", "JSON object"],
    ["null", "JSON object"],
    ["[1]", "JSON object"],
    ['{"member":2}', '"member" is none of families, members'],
    ['{"families":["los"]}', 'no family of faults "los"'],
    ['{"families":"loss"}', "families is an array"],
    ['{"members":0}', "members is a whole number from 1 to 7, not 0"],
    ['{"replay":1}', "replay is true or false, not 1"],
  ] as const)
    expect(() => parseOverride(wrong)).toThrow(said);
});
