/**
 * What the replicated log, its files and the process tell Prometheus: gauges and counters read at every scrape, and
 * histograms of what the parts report as it happens. docs/operations.md says what each one means.
 */
import type { AlarmKind, ConsensusStatus } from "../replica/consensus.ts";
import { SampledHistogram } from "./histograms.ts";
import type { GaugeSource, GaugeValue } from "./metrics.ts";

const FAST_S = [
  0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048];
const ALARMS: readonly AlarmKind[] = [
  "inconsistent",
  "clock-skew",
  "low-disk",
  "no-quorum",
  "stuck-executors",
];

/** As of one scrape. Counts are since the process started, durations in milliseconds, sizes in bytes. */
export interface ConsensusFigures {
  readonly status: ConsensusStatus;
  readonly elections: Readonly<Record<string, number>>;
  readonly counters: {
    readonly leaderChanges: number;
    readonly entriesSealed: number;
    readonly commandsSealed: number;
    readonly entriesApplied: number;
    readonly commandsApplied: number;
    readonly commandsForwarded: number;
    readonly framesDropped: number;
    readonly applySeconds: number;
    readonly snapshotsInstalled: number;
    readonly snapshotBytesSent: number;
    readonly snapshotReceiversDropped: number;
  };
  readonly log: {
    readonly writes: number;
    readonly transactions: number;
    readonly entries: number;
    readonly bytes: number;
    readonly bytesWritten: number;
  };
  /** What waits, by what it waits for. */
  readonly queues: Readonly<Record<string, number>>;
  /** Bytes handed to each peer's socket and not gone yet. */
  readonly sendBuffers: Readonly<Record<string, number>>;
  readonly consistency: {
    readonly index: number;
    readonly rounds: number;
    readonly rows: number;
    readonly passes: number;
    readonly pausedSeconds: number;
  };
  /** Applied index that a checkpoint has made durable in the state's file. */
  readonly stateDurableIndex: number;
  /** Of the state's files; null: not known at this moment. */
  readonly stateBytes: number | null;
  readonly stateWalBytes: number | null;
  readonly diskFreeBytes: number;
  /** Share of the time that the main thread ran or wanted to, since the scrape before or for a second; null: unknown. */
  readonly loopBusy: number | null;
}

export class ConsensusMetrics {
  readonly #fsync = new SampledHistogram(
    "flotilla_log_fsync_seconds",
    "Transactions of the log, fsync included.",
    FAST_S,
  );
  readonly #writes = new SampledHistogram(
    "flotilla_log_transaction_writes",
    "Writes that one transaction (one fsync) of the log took together.",
    SIZES,
  );
  readonly #commit = new SampledHistogram(
    "flotilla_commit_seconds",
    "At the leader: from making an entry to having applied it.",
    FAST_S,
  );
  readonly #batch = new SampledHistogram(
    "flotilla_entry_commands",
    "Commands in an entry that this leader made.",
    SIZES,
  );
  readonly #delay = new SampledHistogram(
    "flotilla_loop_delay_seconds",
    "How late a timer of the main loop ran.",
    FAST_S,
  );

  get histograms(): readonly SampledHistogram[] {
    return [this.#fsync, this.#writes, this.#commit, this.#batch, this.#delay];
  }

  logWritten(ms: number, writes: number): void {
    this.#fsync.sample(ms / 1_000);
    this.#writes.sample(writes);
  }

  entrySealed(commands: number): void {
    this.#batch.sample(commands);
  }

  entryApplied(ms: number): void {
    this.#commit.sample(ms / 1_000);
  }

  loopDelayed(ms: number): void {
    this.#delay.sample(ms / 1_000);
  }

  /** `alarms`: kinds that are raised at this member. */
  gauges(figures: () => ConsensusFigures, alarms: () => ReadonlySet<AlarmKind>): GaugeSource[] {
    return [...raft(figures), ...files(figures), ...work(figures), alarm(alarms)];
  }
}

type Figures = () => ConsensusFigures;

/** By name: what it says, and its value; null: it has none now. */
type Families = Readonly<
  Record<string, readonly [help: string, read: (now: ConsensusFigures) => number | null]>
>;

/** Families of one value each; names of counters end in `_total`. */
function values(figures: Figures, kind: "gauge" | "counter", families: Families): GaugeSource[] {
  return Object.entries(families).map(([name, [help, read]]) => ({
    name: `flotilla_${name}${kind === "counter" ? "_total" : ""}`,
    help,
    kind,
    collect: () => {
      const value = read(figures());
      return value === null ? [] : [{ value }];
    },
  }));
}

function perPeer(
  figures: Figures,
  name: string,
  help: string,
  read: (peer: ConsensusStatus["peers"][number], status: ConsensusStatus) => number | null,
): GaugeSource {
  return {
    name: `flotilla_raft_peer_${name}`,
    help,
    labels: ["peer"],
    collect: () => {
      const { status } = figures();
      return status.peers.flatMap((peer) => {
        const value = read(peer, status);
        return value === null ? [] : [{ labels: { peer: peer.id }, value }];
      });
    },
  };
}

function byLabel(
  name: string,
  help: string,
  label: string,
  read: () => Readonly<Record<string, number>>,
  kind: "gauge" | "counter" = "gauge",
): GaugeSource {
  return {
    name: `flotilla_${name}`,
    help,
    kind,
    labels: [label],
    collect: () =>
      Object.entries(read()).map(([key, value]): GaugeValue => ({
        labels: { [label]: key },
        value,
      })),
  };
}

function raft(figures: Figures): GaugeSource[] {
  const leads = (status: ConsensusStatus): boolean => status.role === "leader";
  return [
    ...values(figures, "counter", {
      raft_leader_changes: [
        "Other leaders that this member came to follow, or to be.",
        (now) => now.counters.leaderChanges,
      ],
      raft_frames_dropped: [
        "Frames to peers that found no connection or no room.",
        (now) => now.counters.framesDropped,
      ],
      consistency_rounds: ["Comparisons with the other members.", (now) => now.consistency.rounds],
      consistency_rows: ["Rows read for comparisons.", (now) => now.consistency.rows],
      consistency_pause_seconds: [
        "Time that applies were held for a comparison to begin.",
        (now) => now.consistency.pausedSeconds,
      ],
      consistency_passes: [
        "At the leader: times that all rows were compared.",
        (now) => now.consistency.passes,
      ],
    }),
    ...values(figures, "gauge", {
      raft_last_index: ["Newest entry of this member's log.", (now) => now.status.lastIndex],
      raft_contact_seconds: [
        "Since the newest contact with a majority (leader) or the leader.",
        (now) => seconds(now.status.contactMs),
      ],
      machine_version: ["Machine version in force.", (now) => now.status.machineVersions.inForce],
      machine_version_newest: [
        "Highest machine version that this build applies.",
        (now) => now.status.machineVersions.own,
      ],
      consistency_index: [
        "Index of the newest comparison with the other members.",
        (now) => now.consistency.index,
      ],
    }),
    perPeer(
      figures,
      "match_index",
      "At the leader: what the peer is known to hold.",
      (peer, status) => (leads(status) ? peer.match : null),
    ),
    perPeer(
      figures,
      "lag_entries",
      "At the leader: entries that the peer lacks.",
      (peer, status) => (leads(status) ? Math.max(0, status.lastIndex - peer.match) : null),
    ),
    perPeer(figures, "round_trip_seconds", "Of the newest ping of the connection.", (peer) =>
      seconds(peer.roundTripMs),
    ),
    perPeer(figures, "last_contact_seconds", "Since the newest message of the peer.", (peer) =>
      seconds(peer.lastContactMs),
    ),
    perPeer(figures, "connected", "1 while this member's connection to the peer is up.", (peer) =>
      peer.connected ? 1 : 0,
    ),
    byLabel(
      "raft_elections_total",
      "Elections that this member stood for, by why it began.",
      "reason",
      () => figures().elections,
      "counter",
    ),
  ];
}

function files(figures: Figures): GaugeSource[] {
  return [
    ...values(figures, "counter", {
      log_transactions: ["Transactions of the log, one fsync each.", (now) => now.log.transactions],
      log_writes: ["Writes to the log.", (now) => now.log.writes],
      log_written_bytes: ["Data of entries written to the log.", (now) => now.log.bytesWritten],
      snapshots_installed: [
        "Snapshots put in place of this member's state.",
        (now) => now.counters.snapshotsInstalled,
      ],
      snapshot_sent_bytes: [
        "Bytes of snapshots sent to other members.",
        (now) => now.counters.snapshotBytesSent,
      ],
      snapshot_receivers_dropped: [
        "Members that fetched a snapshot too slowly.",
        (now) => now.counters.snapshotReceiversDropped,
      ],
    }),
    ...values(figures, "gauge", {
      log_entries: [
        "Entries that the log holds; compacted ones do not count.",
        (now) => now.log.entries,
      ],
      log_bytes: ["The log on the disk.", (now) => now.log.bytes],
      state_durable_index: [
        "Applied index that a checkpoint has made durable.",
        (now) => now.stateDurableIndex,
      ],
      state_bytes: ["The state database on the disk.", (now) => now.stateBytes],
      state_wal_bytes: [
        "The state database's write-ahead log on the disk.",
        (now) => now.stateWalBytes,
      ],
      disk_free_bytes: ["Room on the disk of the data folder.", (now) => now.diskFreeBytes],
      snapshot_received_bytes: [
        "Of the snapshot that is being fetched; absent while none is.",
        (now) => now.status.receiving?.bytes ?? null,
      ],
      snapshot_size_bytes: [
        "The snapshot that is being fetched; absent while none is.",
        (now) => now.status.receiving?.of ?? null,
      ],
    }),
  ];
}

function work(figures: Figures): GaugeSource[] {
  return [
    ...values(figures, "counter", {
      entries_sealed: [
        "Entries that this member made as a leader.",
        (now) => now.counters.entriesSealed,
      ],
      commands_sealed: ["Commands in them.", (now) => now.counters.commandsSealed],
      entries_applied: ["Entries applied.", (now) => now.counters.entriesApplied],
      commands_applied: ["Commands in them.", (now) => now.counters.commandsApplied],
      apply_seconds: ["Time spent applying.", (now) => now.counters.applySeconds],
      commands_forwarded: [
        "Commands handed to a leader elsewhere.",
        (now) => now.counters.commandsForwarded,
      ],
    }),
    ...values(figures, "gauge", {
      loop_busy_ratio: [
        "Share of the time that the main thread ran, or waited for a processor; 1 is saturated.",
        (now) => now.loopBusy,
      ],
    }),
    byLabel("waiting", "What waits at this member, by what for.", "what", () => figures().queues),
    byLabel(
      "peer_send_buffer_bytes",
      "Handed to the peer's socket and not sent yet.",
      "peer",
      () => figures().sendBuffers,
    ),
  ];
}

function alarm(alarms: () => ReadonlySet<AlarmKind>): GaugeSource {
  return {
    name: "flotilla_alarm",
    help: "1 while something needs an operator, by kind.",
    labels: ["kind"],
    collect: () => {
      const raised = alarms();
      return ALARMS.map((kind) => ({ labels: { kind }, value: raised.has(kind) ? 1 : 0 }));
    },
  };
}

function seconds(ms: number | null): number | null {
  return ms === null ? null : ms / 1_000;
}
