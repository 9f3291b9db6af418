/**
 * What one seed decides (swarm): the shape of the cluster, its timing, its limits, the workload, and which
 * families of faults strike. More than half of the families are off in each seed, so that rare combinations get room.
 */
import type { CoreLimits } from "../../src/raft/options.ts";
import type { Millis } from "../../src/replica/ports.ts";
import { Prng } from "./world.ts";

/** Each with the letter that the list of faults in docs/simulator.md has for it. */
export const FAULT_CODES = {
  loss: "N1",
  duplicates: "N2",
  reorder: "N3",
  clog: "N4",
  partition: "N5",
  break: "N6",
  "half-open": "N6",
  "old-frames": "N7",
  "send-limit": "N8",
  late: "N9",
  cut: "N10",
  garbage: "N10",
  "slow-disk": "D1",
  "disk-stall": "D1",
  "disk-hang": "D2",
  "disk-failure": "D3, D4",
  "disk-full": "D5",
  "power-loss": "D6, D7",
  "chunk-rot": "D8",
  "log-rot": "D8, D9",
  "state-loss": "D9",
  "old-copy": "D10",
  wipe: "D11",
  "read-only": "D12",
  crash: "P1, P3",
  "crash-at-effect": "P1",
  pause: "P2, P5",
  "executor-crash": "P4",
  "executor-hang": "P4",
  drift: "C1",
  "wall-jump": "C2",
  suspend: "C3",
  skew: "C4",
  add: "M1",
  remove: "M1",
  replace: "M1",
  transfer: "M2",
  "remove-cut": "M3",
  return: "M4",
  usurp: "M2, N5",
  compaction: "M5, P3",
} as const;

/**
 * Younger than the first seeds in seeds.txt. Each is drawn from a stream of its own, and so is what it does: a seed in
 * which none of them is on does what it always did.
 */
export const YOUNG_CODES = {
  "claim-again": "K1",
  "lost-answer": "K1",
  keyed: "K1, K2",
  restore: "M5",
  rescue: "M6",
  "row-rot": "D8, T9",
  "vote-rot": "D8",
  sieve: "N1",
  echo: "N9",
  "slow-read": "D1",
  "leader-hang": "D1, D2",
  "short-queues": "D2",
  "odd-apply": "T9",
  stranger: "Q3, Q4",
  "rot-and-lag": "D8, N5",
  "same-again": "M4, T2",
  twin: "T8",
  "joint-cut": "M1, N5",
  "all-pause": "P2, T6",
  "long-log": "N5, P1",
  "old-build": "P7",
  "lone-return": "M4, P1",
  "ask-again": "P1, N9",
  "last-right": "M1, T9",
  "forgotten-fork": "N5, M5",
  "added-again": "M4, T2",
  "short-audits": "T9",
} as const;
type YoungFamily = keyof typeof YOUNG_CODES;
/** What ends a run in another way than usual, or stands for a rare moment, has a smaller share of them. */
const SELDOM: Partial<Record<YoungFamily, number>> = {
  restore: 0.15,
  rescue: 0.12,
  sieve: 0.15,
  echo: 0.2,
  "slow-read": 0.2,
  "leader-hang": 0.15,
  "short-queues": 0.15,
  "all-pause": 0.2,
  "long-log": 0.2,
  "old-build": 0.15,
  "lone-return": 0.15,
  "ask-again": 0.2,
  "last-right": 0.15,
};
export type FaultFamily = keyof typeof FAULT_CODES | YoungFamily;
const FAULT_FAMILIES = Object.keys(FAULT_CODES) as readonly (keyof typeof FAULT_CODES)[];
const YOUNG_FAMILIES = Object.keys(YOUNG_CODES) as readonly YoungFamily[];

/** Randomness for one purpose, apart from what else the seed draws. */
export function streamOf(seed: number, purpose: string): Prng {
  return new Prng(seed ^ Bun.hash.crc32(purpose));
}

export interface SimOptions {
  readonly seed: number;
  readonly members: number;
  readonly heartbeatMs: Millis;
  readonly electionTimeoutMs: Millis;
  readonly requestTimeoutMs: Millis;
  readonly leaseMs: Millis;
  readonly maxCrashes: number;
  /** Of the core, where they are not production's. */
  readonly limits: Partial<CoreLimits>;
  /** Executors of each member; zeros are among them. */
  readonly concurrency: readonly number[];
  readonly clients: number;
  /** Workers outside of the members. */
  readonly workers: number;
  /** Between two calls of a client, on average. */
  readonly thinkMs: Millis;
  /** Length of the phase with faults. */
  readonly faultsMs: Millis;
  /** Between two faults of any family, on average. */
  readonly faultEveryMs: Millis;
  /** Faults strike while the cluster is founded, too. */
  readonly early: boolean;
  readonly families: ReadonlySet<FaultFamily>;
  readonly delayMinMs: Millis;
  readonly delayMaxMs: Millis;
  readonly loss: number;
  readonly duplicate: number;
  readonly reorder: number;
  /** Share of frames of which a copy arrives up to five seconds late. */
  readonly late: number;
  /** Share of appends that lose their last entries. */
  readonly cut: number;
  /** Share of frames that arrive as garbage. */
  readonly garbage: number;
  /** Share of a snapshot's chunks in which a bit flips. */
  readonly corrupt: number;
  readonly sendLimit: number;
  readonly diskMinMs: Millis;
  readonly diskMaxMs: Millis;
  /** Frames pass through the codec of the real transport. */
  readonly codec: boolean;
  /** Clients clear everything now and then. */
  readonly clears: boolean;
  /** The log is replayed into an empty state at the end. */
  readonly replay: boolean;
  /** Rows of the state that a member may hold uncommitted. */
  readonly writeBehind: number;
  /** Members compare the rows of their states, too (T9). */
  readonly audit: boolean;
  /** Read by an audit at once: with few a pass over all takes many rounds. */
  readonly auditRows: number;
  /** Whole states are compared at multiples of this index. */
  readonly hashEvery: number;
}

export function drawOptions(seed: number): SimOptions {
  const prng = new Prng(seed ^ 0x5eed);
  const families = new Set<FaultFamily>(FAULT_FAMILIES.filter(() => prng.chance(0.4)));
  // One seed in twelve has no faults at all: what fails there is no matter of faults.
  if (prng.chance(0.08)) families.clear();
  else
    for (const family of YOUNG_FAMILIES)
      if (streamOf(seed, family).chance(SELDOM[family] ?? 0.3)) families.add(family);
  // Somebody must be wrong.
  if (families.has("last-right")) families.add("odd-apply");
  const on = (family: FaultFamily): boolean => families.has(family);
  const members = prng.pick([1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
  const heartbeatMs = prng.pick([20, 50, 50, 100]);
  const electionTimeoutMs = heartbeatMs * prng.pick([4, 6, 6, 10]);
  const slow = on("slow-disk");
  return {
    seed,
    members,
    heartbeatMs,
    electionTimeoutMs,
    requestTimeoutMs: prng.pick([1_000, 3_000, 5_000]),
    leaseMs: prng.pick([1_000, 3_000, 5_000]),
    maxCrashes: prng.pick([1, 3, 100]),
    limits: {
      ...(prng.chance(0.4) ? {} : drawLimits(prng)),
      // Only what has left the cache is read back.
      ...(on("slow-read") ? { cacheBytes: streamOf(seed, "cache").pick([0, 2_000]) } : {}),
      ...(on("short-queues") ? drawShortQueues(streamOf(seed, "queues")) : {}),
    },
    concurrency: Array.from({ length: members }, () => prng.pick([0, 1, 2, 4, 8])),
    clients: prng.between(1, 5),
    workers: prng.between(0, 4),
    thinkMs: prng.pick([40, 80, 300, 1_500]),
    faultsMs: prng.pick([6_000, 10_000, 20_000]),
    faultEveryMs: prng.pick([120, 300, 1_000]),
    early: prng.chance(0.12),
    families,
    delayMinMs: prng.pick([0.05, 0.2, 1]),
    delayMaxMs: prng.pick([1, 2, 5, 20]),
    loss: on("loss") ? prng.pick([0.01, 0.05, 0.3]) : 0,
    duplicate: on("duplicates") ? prng.pick([0.02, 0.2, 0.5]) : 0,
    reorder: on("reorder") ? prng.pick([0.02, 0.2]) : 0,
    late: on("late") ? prng.pick([0.01, 0.1]) : 0,
    cut: on("cut") ? prng.pick([0.02, 0.3, 0.6]) : 0,
    garbage: on("garbage") ? prng.pick([0.001, 0.01]) : 0,
    corrupt: on("chunk-rot") ? prng.pick([0.05, 0.3]) : 0,
    sendLimit: on("send-limit") ? prng.pick([1, 8, 40]) : 100_000,
    diskMinMs: 0.05,
    diskMaxMs: slow ? prng.pick([20, 100, 400]) : prng.pick([0.5, 2, 8]),
    codec: prng.chance(0.15),
    clears: prng.chance(0.35),
    replay: prng.chance(0.4),
    hashEvery: prng.pick([64, 256, 1024]),
    writeBehind: prng.pick([0, 5, 100, 16_384]),
    audit: prng.chance(0.25) || on("row-rot") || on("short-audits"),
    auditRows: on("short-audits") ? streamOf(seed, "audit").pick([30, 60, 120]) : 2_000,
  };
}

/** So small that windows fill, batches split, and entries leave the cache while they are needed. */
function drawLimits(prng: Prng): Partial<CoreLimits> {
  return {
    maxAppendBytes: prng.pick([1, 600, 4_000, 1_000_000]),
    maxInflightMessages: prng.pick([1, 2, 8, 64]),
    maxInflightBytes: prng.pick([1, 3_000, 8_000_000]),
    maxUncommittedBytes: prng.pick([4_000, 60_000, 20_000_000]),
    cacheBytes: prng.pick([0, 2_000, 16_000_000]),
  };
}

/** Production's are never full here: thousands of writes on their way to a disk, thousands of reads. */
function drawShortQueues(prng: Prng): Partial<CoreLimits> {
  return {
    maxWritesUnderWay: prng.pick([1, 2, 4, 16]),
    maxReadsWaiting: prng.pick([1, 2, 8]),
  };
}

/** One line of the options, for people. */
export function describeOptions(options: SimOptions): string {
  const { members, heartbeatMs, electionTimeoutMs, leaseMs, clients, workers, families } = options;
  const limits = Object.keys(options.limits).length > 0 ? JSON.stringify(options.limits) : "usual";
  return `${members} members, heartbeat ${heartbeatMs} ms, election ${electionTimeoutMs} ms, lease ${leaseMs} ms, ${clients} clients, ${workers} workers, limits ${limits}; faults: ${[...families].join(", ") || "none"}`;
}
