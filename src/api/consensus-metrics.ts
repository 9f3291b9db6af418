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
  readonly receiving: { readonly bytes: number; readonly of: number } | null;
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

function one(
  name: string,
  help: string,
  read: () => number | null,
  kind: "gauge" | "counter" = "gauge",
): GaugeSource {
  return {
    name: `flotilla_${name}`,
    help,
    kind,
    collect: () => {
      const value = read();
      return value === null ? [] : [{ value }];
    },
  };
}

function counter(name: string, help: string, read: () => number): GaugeSource {
  return one(`${name}_total`, help, read, "counter");
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
    one("raft_last_index", "Newest entry of this member's log.", () => figures().status.lastIndex),
    one(
      "raft_contact_seconds",
      "Since the newest contact with a majority (leader) or the leader.",
      () => seconds(figures().status.contactMs),
    ),
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
    counter(
      "raft_leader_changes",
      "Other leaders that this member came to follow, or to be.",
      () => figures().counters.leaderChanges,
    ),
    counter(
      "raft_frames_dropped",
      "Frames to peers that found no connection or no room.",
      () => figures().counters.framesDropped,
    ),
    one(
      "machine_version",
      "Machine version in force.",
      () => figures().status.machineVersions.inForce,
    ),
    one(
      "machine_version_newest",
      "Highest machine version that this build applies.",
      () => figures().status.machineVersions.own,
    ),
    one(
      "consistency_index",
      "Index of the newest comparison with the other members.",
      () => figures().consistency.index,
    ),
    counter(
      "consistency_rounds",
      "Comparisons with the other members.",
      () => figures().consistency.rounds,
    ),
    counter("consistency_rows", "Rows read for comparisons.", () => figures().consistency.rows),
    counter(
      "consistency_pause_seconds",
      "Time that applies were held for a comparison to begin.",
      () => figures().consistency.pausedSeconds,
    ),
    counter(
      "consistency_passes",
      "At the leader: times that all rows were compared.",
      () => figures().consistency.passes,
    ),
  ];
}

function files(figures: Figures): GaugeSource[] {
  return [
    counter(
      "log_transactions",
      "Transactions of the log, one fsync each.",
      () => figures().log.transactions,
    ),
    counter("log_writes", "Writes to the log.", () => figures().log.writes),
    counter(
      "log_written_bytes",
      "Data of entries written to the log.",
      () => figures().log.bytesWritten,
    ),
    one(
      "log_entries",
      "Entries that the log holds; compacted ones do not count.",
      () => figures().log.entries,
    ),
    one("log_bytes", "The log on the disk.", () => figures().log.bytes),
    one(
      "state_durable_index",
      "Applied index that a checkpoint has made durable.",
      () => figures().stateDurableIndex,
    ),
    one("state_bytes", "The state database on the disk.", () => figures().stateBytes),
    one(
      "state_wal_bytes",
      "The state database's write-ahead log on the disk.",
      () => figures().stateWalBytes,
    ),
    one("disk_free_bytes", "Room on the disk of the data folder.", () => figures().diskFreeBytes),
    counter(
      "snapshots_installed",
      "Snapshots put in place of this member's state.",
      () => figures().counters.snapshotsInstalled,
    ),
    counter(
      "snapshot_sent_bytes",
      "Bytes of snapshots sent to other members.",
      () => figures().counters.snapshotBytesSent,
    ),
    counter(
      "snapshot_receivers_dropped",
      "Members that fetched a snapshot too slowly.",
      () => figures().counters.snapshotReceiversDropped,
    ),
    one(
      "snapshot_received_bytes",
      "Of the snapshot that is being fetched; absent while none is.",
      () => figures().receiving?.bytes ?? null,
    ),
    one(
      "snapshot_size_bytes",
      "The snapshot that is being fetched; absent while none is.",
      () => figures().receiving?.of ?? null,
    ),
  ];
}

function work(figures: Figures): GaugeSource[] {
  return [
    counter(
      "entries_sealed",
      "Entries that this member made as a leader.",
      () => figures().counters.entriesSealed,
    ),
    counter("commands_sealed", "Commands in them.", () => figures().counters.commandsSealed),
    counter("entries_applied", "Entries applied.", () => figures().counters.entriesApplied),
    counter("commands_applied", "Commands in them.", () => figures().counters.commandsApplied),
    counter("apply_seconds", "Time spent applying.", () => figures().counters.applySeconds),
    counter(
      "commands_forwarded",
      "Commands handed to a leader elsewhere.",
      () => figures().counters.commandsForwarded,
    ),
    byLabel("waiting", "What waits at this member, by what for.", "what", () => figures().queues),
    byLabel(
      "peer_send_buffer_bytes",
      "Handed to the peer's socket and not sent yet.",
      "peer",
      () => figures().sendBuffers,
    ),
    one(
      "loop_busy_ratio",
      "Share of the time that the main thread ran, or waited for a processor; 1 is saturated.",
      () => figures().loopBusy,
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
