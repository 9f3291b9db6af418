import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { decodeCommand } from "../../src/queue/command-codec.ts";
import { Chain, CHAIN_START, ChainHistory } from "../../src/queue/chain.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import type { CommittedEntry } from "../../src/replica/ports.ts";
import { complete, failure, Harness, newTask, idAt, START } from "./machine-harness.ts";

/** Some of everything: submits, claims, ends, failures with jitter, a clear, a refusal. */
function history(): readonly CommittedEntry[] {
  const h = new Harness();
  h.submit();
  h.submit({ retry: { kind: "fixed", initial_ms: 500, factor: 2, max_ms: 60_000, jitter: true } });
  h.end(h.claimOne(), complete);
  h.end(h.claimOne(), failure());
  h.do({ type: "cancel", id: "no such task" });
  h.submit();
  h.claimOne();
  h.do({ type: "clear", status: "Completed" });
  h.do({ type: "clear-step", term: 1, max: 10 });
  h.submit();
  return h.entries;
}

function replay(entries: readonly CommittedEntry[], batch = entries.length): TaskMachine {
  const machine = TaskMachine.open(new Database(":memory:"));
  for (let i = 0; i < entries.length; i += batch) machine.apply(entries.slice(i, i + batch));
  return machine;
}

describe("the chain", () => {
  test("is the same whichever entries share a transaction", () => {
    const entries = history();
    const last = entries.length;
    const chain = replay(entries).chainAt(last);
    expect(chain).toMatch(/^[0-9a-f]{16}$/);
    for (const batch of [1, 2, 3]) expect(replay(entries, batch).chainAt(last)).toBe(chain);
  });

  test("goes on after a restart where it was", () => {
    const entries = history();
    const db = new Database(":memory:");
    TaskMachine.open(db).apply(entries.slice(0, 5));
    const again = TaskMachine.open(db);
    again.apply(entries.slice(5));
    expect(again.chainAt(entries.length)).toBe(replay(entries).chainAt(entries.length));
    expect(again.chainAt(5)).toBe(replay(entries.slice(0, 5)).chainAt(5));
  });

  test("differs from the entry on that was applied differently, and for ever", () => {
    const entries = history();
    const straight = replay(entries);
    // The failure's delay is drawn from the seed: a member that drew it elsewhere has another due time.
    const failed = entries.findIndex(({ requests }) =>
      JSON.stringify(requests.map(({ command }) => decodeCommand(command))).includes(
        '"kind":"fail"',
      ),
    );
    const mutations: ((entry: CommittedEntry) => CommittedEntry)[] = [
      (entry) => ({ ...entry, seed: entry.seed + 1 }),
      (entry) => ({ ...entry, now: entry.now + 1 }),
      (entry) => ({ ...entry, requests: [] }),
    ];
    for (const mutate of mutations) {
      const crooked = replay(entries.map((entry, i) => (i === failed ? mutate(entry) : entry)));
      expect(crooked.chainAt(failed)).toBe(straight.chainAt(failed));
      expect(crooked.chainAt(failed + 1)).not.toBe(straight.chainAt(failed + 1));
      expect(crooked.chainAt(entries.length)).not.toBe(straight.chainAt(entries.length));
    }
  });

  test("tells a due time apart that nothing else shows", () => {
    const [one, two] = [0, 1].map((later) => {
      const h = new Harness();
      h.do({
        type: "submit",
        tasks: [newTask(idAt(START, 1), { run_at: START + 60_000 + later })],
      });
      return h.machine.chainAt(1);
    });
    expect(one).not.toBe(two);
  });

  test("numbers beyond 32 bits, null and texts of any length count", () => {
    const after = (mix: (chain: Chain) => void): string => {
      const chain = new Chain(CHAIN_START);
      mix(chain);
      return chain.value();
    };
    const values = [
      after((chain) => chain.mix(0)),
      after((chain) => chain.mix(1)),
      after((chain) => chain.mix(null)),
      after((chain) => chain.mix(2 ** 32)),
      after((chain) => chain.mix(Number.MAX_SAFE_INTEGER)),
      after((chain) => chain.mixText("")),
      after((chain) => chain.mixText("a")),
      after((chain) => chain.mixText("x".repeat(100))),
      after((chain) => chain.mixText(`${"x".repeat(99)}y`)),
      after((chain) => chain.mixText(`y${"x".repeat(99)}`)),
      after((chain) => chain.mixText("x".repeat(101))),
    ];
    expect(new Set(values).size).toBe(values.length);
  });

  test("the newest entries are remembered, older ones are not", () => {
    const kept = new ChainHistory(4);
    for (let index = 1; index <= 6; index++) kept.keep(index, `${index}`);
    expect([1, 2, 3, 4, 5, 6, 7].map((index) => kept.at(index))).toEqual([
      null,
      null,
      "3",
      "4",
      "5",
      "6",
      null,
    ]);
  });
});
