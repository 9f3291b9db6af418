/** What an entry does under each machine version: what an earlier release did, and what came with a later one. */
import { describe, expect, test } from "bun:test";
import { TaskMachine } from "../../src/queue/machine.ts";
import { DEFAULT_LOG_TAIL, type Settings } from "../../src/queue/types.ts";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import { complete, Harness, START } from "./machine-harness.ts";

const BOTH = { oldest: 1, newest: 2 };
const MIB = 1024 * 1024;

/** After entry 1 of a cluster that is founded on `machineVersion`. */
function founded(machineVersion: number, settings: unknown = {}): Harness {
  const h = new Harness({ machineVersions: BOTH });
  h.index = 1;
  h.machine.apply([
    {
      index: asIndex(1),
      term: asTerm(1),
      now: START,
      seed: 7,
      requests: [],
      acks: [],
      bootstrap: { clusterId: "c1", createdAt: START, members: [], machineVersion, settings },
    },
  ]);
  return h;
}

function text(h: Harness): string | undefined {
  return h.db.query<{ settings: string }, []>("SELECT settings FROM state").get()?.settings;
}

describe("under machine version 1", () => {
  // As the first release (commit bb8c02f) made of these very entries.
  test("entries do what they did in the first release, byte for byte, also with what it does not know", () => {
    const h = founded(1, { lease: 9_000, log_tail: { max_bytes: 1 } });
    expect(h.machine.chainAt(1)).toBe("05704a0995f60408");
    h.submit();
    h.value({
      type: "settings",
      settings: { lease: 8_000, log_tail: { max_bytes: 2_000_000 } },
    });
    h.end(h.claimOne(), complete);
    expect(text(h)).toBe(
      '{"lease":8000,"retention":{"completed":86400000,"cancelled":86400000,"failed":604800000},' +
        '"max_payload":262144,"max_waiting":10000000,"max_crashes":3,"retry":{"kind":"exponential",' +
        '"initial_ms":1000,"factor":2,"max_ms":300000,"jitter":true},"timeout_ms":60000}',
    );
    expect(h.machine.chainAt(5)).toBe("b630f6b5e8c54e76");
    expect(h.machine.hash()).toBe(
      "df82aeee7b1a449b2b4ff3140f5176897983c3d0963a341dac75c26890590e5c",
    );
  });

  test("a state that has applied nothing is the same in builds of all versions", () => {
    const old = new Harness({ machineVersions: { oldest: 1, newest: 1 } });
    expect(new Harness({ machineVersions: BOTH }).machine.hash()).toBe(old.machine.hash());
    expect(text(old)).not.toContain("log_tail");
  });
});

describe("from machine version 2 on", () => {
  test("log_tail is a setting, part by part; raising brings it in with its defaults", () => {
    const h = founded(1, { lease: 9_000 });
    const before: Settings = h.machine.settings();
    expect(before.log_tail).toBeUndefined();
    h.value({ type: "raise", term: 1, version: 2 });
    expect(h.machine.settings()).toEqual({ ...before, log_tail: DEFAULT_LOG_TAIL });
    h.value({ type: "settings", settings: { log_tail: { max_bytes: 8 * MIB } } });
    h.value({ type: "settings", settings: { log_tail: { young_ms: 5_000 }, max_crashes: 7 } });
    const now = {
      ...before,
      max_crashes: 7,
      log_tail: { ...DEFAULT_LOG_TAIL, max_bytes: 8 * MIB, young_ms: 5_000 },
    };
    expect(h.machine.settings()).toEqual(now);
    // A repeat of the raise, as another look of the leader may make it, puts nothing back.
    h.value({ type: "raise", term: 1, version: 2 });
    expect(h.machine.settings()).toEqual(now);
    const again = TaskMachine.open(h.db, { machineVersions: BOTH });
    expect(again.settings()).toEqual(now);
    expect(again.chainAt(h.index)).toBe(h.machine.chainAt(h.index));
  });

  test("a command of the same entry, behind the raise, is the first of the new version", () => {
    const h = founded(1);
    h.value(
      { type: "raise", term: 1, version: 2 },
      { type: "settings", settings: { log_tail: { max_ms: 3_600_000 } } },
    );
    expect(h.machine.settings().log_tail).toEqual({ ...DEFAULT_LOG_TAIL, max_ms: 3_600_000 });
  });

  test("a cluster founded on it has it from entry 1", () => {
    expect(founded(2).machine.settings().log_tail).toEqual(DEFAULT_LOG_TAIL);
    const given = { log_tail: { ...DEFAULT_LOG_TAIL, young_bytes: 0 } };
    expect(founded(2, given).machine.settings().log_tail).toEqual(given.log_tail);
  });

  // A format from now on: the text lies in states, and is part of the chain.
  test("the settings' text and the chain are these", () => {
    const h = founded(1, { lease: 9_000 });
    h.value({ type: "raise", term: 1, version: 2 });
    h.value({ type: "settings", settings: { log_tail: { max_bytes: 2_000_000 } } });
    expect(text(h)).toBe(
      '{"lease":9000,"retention":{"completed":86400000,"cancelled":86400000,"failed":604800000},' +
        '"max_payload":262144,"max_waiting":10000000,"max_crashes":3,"retry":{"kind":"exponential",' +
        '"initial_ms":1000,"factor":2,"max_ms":300000,"jitter":true},"timeout_ms":60000,' +
        '"log_tail":{"max_bytes":2000000,"max_ms":86400000,"young_bytes":33554432,"young_ms":60000}}',
    );
    expect(h.machine.chainAt(h.index)).toBe("565f218655501247");
  });
});
