import { expect, test } from "bun:test";
import { join } from "node:path";
import { type ConsensusFigures, ConsensusMetrics } from "../../src/api/consensus-metrics.ts";
import { Metrics, queueGauges } from "../../src/api/metrics.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import { systemClock } from "../../src/system/clock.ts";
import { FakeQueue } from "./fake-queue.ts";

const OPERATIONS = join(import.meta.dir, "..", "..", "docs", "operations.md");

function figures(role: "leader" | "follower"): ConsensusFigures {
  return {
    status: {
      id: asNodeId("n1"),
      role,
      term: asTerm(3),
      leader: asNodeId("n1"),
      active: role === "leader",
      clusterId: "c",
      commit: asIndex(90),
      applied: asIndex(80),
      lastIndex: asIndex(100),
      configuration: { voters: [], outgoing: [], learners: [], learnersNext: [], members: {} },
      peers: [
        {
          id: asNodeId("n2"),
          match: asIndex(97),
          state: "replicate",
          lastContactMs: 20,
          roundTripMs: 0.5,
          connected: true,
        },
        {
          id: asNodeId("n3"),
          match: asIndex(0),
          state: "probe",
          lastContactMs: null,
          roundTripMs: null,
          connected: false,
        },
      ],
      contactMs: 10,
      stalenessMs: 0,
      waiting: null,
      retired: false,
      learners: new Map(),
      receiving: { bytes: 10, of: 40 },
      catchingUp: null,
      condemned: null,
      alarms: [],
      machineVersions: { inForce: 1, own: 2, supported: null },
    },
    elections: { timeout: 2, "leader-lost": 1, transfer: 0 },
    counters: {
      leaderChanges: 4,
      entriesSealed: 5,
      commandsSealed: 50,
      entriesApplied: 6,
      commandsApplied: 60,
      commandsForwarded: 7,
      framesDropped: 8,
      applySeconds: 0.25,
      snapshotsInstalled: 1,
      snapshotBytesSent: 1_000,
      snapshotReceiversDropped: 0,
    },
    log: { writes: 9, transactions: 3, entries: 11, bytes: 12_000, bytesWritten: 13_000 },
    queues: { proposals: 1, applies: 10, claims: 5 },
    sendBuffers: { n2: 300, n3: 0 },
    consistency: { index: 88, rounds: 14, rows: 15, passes: 2, pausedSeconds: 0.5 },
    stateDurableIndex: 77,
    stateBytes: 4_096,
    stateWalBytes: null,
    diskFreeBytes: 5_000_000,
    loopBusy: 0.5,
  };
}

async function scrape(given: ConsensusFigures, times = 1): Promise<string> {
  const metrics = new Metrics(systemClock);
  const consensus = new ConsensusMetrics();
  for (const source of queueGauges(new FakeQueue(() => 0), "n1")) metrics.gauge(source);
  for (const source of consensus.gauges(
    () => given,
    () => new Set(["low-disk"]),
  ))
    metrics.gauge(source);
  for (const family of consensus.histograms) metrics.histogram(family);
  consensus.logWritten(0.3, 5);
  consensus.logWritten(20, 1);
  consensus.entrySealed(64);
  consensus.entryApplied(2);
  consensus.loopDelayed(0);
  let text = "";
  for (let i = 0; i < times; i++) text = await metrics.text();
  return text;
}

/** `flotilla_name{labels} value` by what stands before the value. */
function samples(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const at = line.lastIndexOf(" ");
    found.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return found;
}

test("what the log does is told in seconds, bytes and counts, by peer and by reason", async () => {
  const found = samples(await scrape(figures("leader")));
  const expected = {
    flotilla_raft_last_index: 100,
    'flotilla_raft_peer_match_index{peer="n2"}': 97,
    'flotilla_raft_peer_lag_entries{peer="n2"}': 3,
    'flotilla_raft_peer_round_trip_seconds{peer="n2"}': 0.0005,
    'flotilla_raft_peer_connected{peer="n3"}': 0,
    'flotilla_raft_elections_total{reason="leader-lost"}': 1,
    'flotilla_raft_elections_total{reason="transfer"}': 0,
    flotilla_log_written_bytes_total: 13_000,
    'flotilla_log_fsync_seconds_bucket{le="0.0005"}': 1,
    'flotilla_log_fsync_seconds_bucket{le="0.025"}': 2,
    flotilla_log_fsync_seconds_count: 2,
    'flotilla_entry_commands_bucket{le="64"}': 1,
    'flotilla_entry_commands_bucket{le="32"}': 0,
    flotilla_commit_seconds_sum: 0.002,
    'flotilla_waiting{what="claims"}': 5,
    'flotilla_peer_send_buffer_bytes{peer="n2"}': 300,
    flotilla_snapshot_received_bytes: 10,
    'flotilla_alarm{kind="low-disk"}': 1,
    'flotilla_alarm{kind="inconsistent"}': 0,
    flotilla_loop_busy_ratio: 0.5,
  };
  for (const [name, value] of Object.entries(expected))
    expect([name, found.get(name)]).toEqual([name, value]);
  // Not known is left out: it is not 0.
  expect(found.has("flotilla_state_wal_bytes")).toBe(false);
  expect(found.has('flotilla_raft_peer_round_trip_seconds{peer="n3"}')).toBe(false);
});

test("only a leader says what the others hold", async () => {
  const text = await scrape(figures("follower"));
  expect(text).not.toContain("flotilla_raft_peer_match_index{");
  expect(text).toContain("flotilla_raft_peer_connected{");
});

test("a counter does not grow by being read", async () => {
  expect(samples(await scrape(figures("leader"), 3)).get("flotilla_log_writes_total")).toBe(9);
});

test("counters are called totals, and every family is in the manual", async () => {
  const text = await scrape(figures("leader"));
  const manual = await Bun.file(OPERATIONS).text();
  const missing: string[] = [];
  for (const [, name = "", type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
    if (name.startsWith("flotilla_"))
      expect([name, type === "counter"]).toEqual([name, name.endsWith("_total")]);
    if (!manual.includes(`\`${name}\``) && !manual.includes(`\`${name}{`)) missing.push(name);
  }
  expect(missing).toEqual([]);
});
