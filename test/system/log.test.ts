import { expect, test } from "bun:test";
import { stripVTControlCharacters } from "node:util";
import type { LogRecord } from "@logtape/logtape";
import { prettyLine } from "../../src/system/log.ts";

const record = (message: string, properties: Record<string, unknown>): LogRecord => ({
  category: ["flotilla"],
  level: "info",
  message: [message],
  rawMessage: message,
  timestamp: 0,
  properties,
});
const line = (message: string, properties: Record<string, unknown>): string =>
  stripVTControlCharacters(prettyLine(record(message, properties)));

test("a line for people has its fields after the sentence, without quotes", () => {
  expect(line("following n2", { term: 2, role: "follower", none: null })).toEndWith(
    "INF : following n2 term=2 role=follower\n",
  );
  expect(line("cluster founded", { members: ["n1"] })).toEndWith(
    'cluster founded members=["n1"]\n',
  );
  expect(line("started", {})).toEndWith("started\n");
});

test("what a handler threw cannot write on the terminal by itself, and a stack keeps its lines", () => {
  const shown = prettyLine(
    record("failed", { error: "a\u001b[2Jb\nc\u009b2J", stack: "Error\n  at x" }),
  );
  expect(shown).not.toContain("\u001b[2J");
  expect(shown).toContain("\\nc\\u009b2J");
  expect(shown).toContain("Error\n  at x");
});
