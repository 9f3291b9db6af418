/**
 * What one seed decides (swarm): the shape of the cluster, its timing, the workload, and which families of
 * faults strike. About half of the families are off in each seed, so that rare combinations get room.
 */
import type { Millis } from "../../src/replica/ports.ts";
import { Prng } from "./world.ts";

export const FAULT_FAMILIES = [
  "loss",
  "duplicates",
  "reorder",
  "clog",
  "partition",
  "break",
  "send-limit",
  "slow-disk",
  "disk-stall",
  "disk-hang",
  "disk-failure",
  "crash",
  "crash-at-effect",
  "power-loss",
  "state-loss",
  "pause",
  "suspend",
  "drift",
  "wall-jump",
  "skew",
  "executor-crash",
  "executor-hang",
  "transfer",
] as const;
export type FaultFamily = (typeof FAULT_FAMILIES)[number];

export interface SimOptions {
  readonly seed: number;
  readonly members: number;
  readonly heartbeatMs: Millis;
  readonly electionTimeoutMs: Millis;
  readonly requestTimeoutMs: Millis;
  readonly leaseMs: Millis;
  readonly maxCrashes: number;
  /** Executors of each member; zeros are among them. */
  readonly concurrency: readonly number[];
  readonly clients: number;
  /** Workers outside of the members. */
  readonly workers: number;
  /** Between two calls of a client, on average. */
  readonly thinkMs: Millis;
  /** Length of the phase with faults. */
  readonly faultsMs: Millis;
  /** Between two faults of the same family, on average. */
  readonly faultEveryMs: Millis;
  readonly families: ReadonlySet<FaultFamily>;
  readonly delayMinMs: Millis;
  readonly delayMaxMs: Millis;
  readonly loss: number;
  readonly duplicate: number;
  readonly reorder: number;
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
}

export function drawOptions(seed: number): SimOptions {
  const prng = new Prng(seed ^ 0x5eed);
  const families = new Set<FaultFamily>(FAULT_FAMILIES.filter(() => prng.chance(0.45)));
  // One seed in twelve has no faults at all: what fails there is no matter of faults.
  if (prng.chance(0.08)) families.clear();
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
    concurrency: Array.from({ length: members }, () => prng.pick([0, 1, 2, 4, 8])),
    clients: prng.between(1, 5),
    workers: prng.between(0, 4),
    thinkMs: prng.pick([20, 80, 300, 1_500]),
    faultsMs: prng.pick([8_000, 15_000, 30_000]),
    faultEveryMs: prng.pick([400, 1_500, 5_000]),
    families,
    delayMinMs: prng.pick([0.05, 0.2, 1]),
    delayMaxMs: prng.pick([1, 2, 5, 20]),
    loss: on("loss") ? prng.pick([0.01, 0.05, 0.3]) : 0,
    duplicate: on("duplicates") ? prng.pick([0.02, 0.2, 0.5]) : 0,
    reorder: on("reorder") ? prng.pick([0.02, 0.2]) : 0,
    sendLimit: on("send-limit") ? prng.pick([1, 8, 40]) : 100_000,
    diskMinMs: 0.05,
    diskMaxMs: slow ? prng.pick([20, 100, 400]) : prng.pick([0.5, 2, 8]),
    codec: prng.chance(0.2),
    clears: prng.chance(0.35),
    replay: prng.chance(0.5),
    writeBehind: prng.pick([0, 5, 100, 16_384]),
  };
}

/** One line of the options, for people. */
export function describeOptions(options: SimOptions): string {
  const { members, heartbeatMs, electionTimeoutMs, leaseMs, clients, workers, families } = options;
  return `${members} members, heartbeat ${heartbeatMs} ms, election ${electionTimeoutMs} ms, lease ${leaseMs} ms, ${clients} clients, ${workers} workers; faults: ${[...families].join(", ") || "none"}`;
}
