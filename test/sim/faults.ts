/** What goes wrong, when, and for how long: each family that is on strikes at moments drawn from the seed. */
import type { DiskFaults } from "./log-store.ts";
import type { SimNode } from "./node.ts";
import { askAgain } from "./ask-again.ts";
import { forgottenFork, longLog } from "./forks.ts";
import { applyOddly } from "./odd-apply.ts";
import { type FaultFamily, streamOf } from "./options.ts";
import { rotAndLag } from "./rot-and-lag.ts";
import { rotRow } from "./rot.ts";
import { CLOCK_STRIKES } from "./strikes/clocks.ts";
import { DISK_STRIKES } from "./strikes/disks.ts";
import { LEADER_STRIKES } from "./strikes/leaders.ts";
import { PATH_STRIKES } from "./strikes/paths.ts";
import { PROCESS_STRIKES } from "./strikes/processes.ts";
import type { Strikes } from "./strikes/strike.ts";
import type { Simulation } from "./simulation.ts";
import { Prng } from "./world.ts";

/** What clients, workers and executors do that counts as a fault; by its letter in docs/simulator.md. */
export const ACTIONS = {
  "retried elsewhere": "K1",
  "one key at two members": "K2",
  "end after expiry": "K3",
  "cancel while running": "K4",
  burst: "K5",
  "long idle time": "K6",
  "rows compared": "T9",
  "rot repaired": "T9",
  "return of the old": "M5, M6",
} as const;
export type Action = keyof typeof ACTIONS;

export class Faults {
  readonly #sim: Simulation;
  readonly #prng: Prng;
  readonly #reads: Prng;
  readonly #echoes: Prng;
  /** How often each kind really struck. */
  readonly struck = new Map<FaultFamily | Action, number>();
  #on = false;

  constructor(sim: Simulation) {
    this.#sim = sim;
    this.#prng = new Prng(sim.world.prng.uint32());
    this.#reads = streamOf(sim.options.seed, "slow reads");
    this.#echoes = streamOf(sim.options.seed, "echoes of a role");
  }

  start(): void {
    this.#on = true;
    const { families, faultEveryMs } = this.#sim.options;
    const striking = [...families].filter((family) => STRIKES[family] !== undefined);
    for (const family of striking) {
      const strike = STRIKES[family];
      const next = (): void => {
        const waitMs = -Math.log(1 - this.#prng.float()) * faultEveryMs * striking.length;
        this.#sim.world.at(this.#sim.world.now + waitMs, () => {
          if (!this.#on) return;
          if (strike?.(this.#sim, this.#prng) === true) {
            if (!BY_FRAMES.has(family)) this.count(family);
            if (family !== "wall-jump" && family !== "drift") this.#sim.disturbed();
          }
          next();
        });
      };
      next();
    }
  }

  stop(): void {
    this.#on = false;
  }

  count(what: FaultFamily | Action, times = 1): void {
    if (times > 0) this.struck.set(what, (this.struck.get(what) ?? 0) + times);
  }

  /** What the network did to frames is known to the network. */
  countFrames(): void {
    const { counts } = this.#sim.network;
    this.count("loss", counts.lost);
    this.count("duplicates", counts.doubled);
    this.count("reorder", counts.overtaken);
    this.count("send-limit", counts.refused);
    this.count("late", counts.late);
    this.count("cut", counts.shortened);
    this.count("garbage", counts.garbage);
    this.count("chunk-rot", counts.corrupted);
    this.count("sieve", counts.sieved);
    this.count("echo", counts.echoed);
    this.count("clog", counts.clogged);
    this.count("partition", counts.partitioned);
    this.count("half-open", counts.swallowed);
    this.count("old-frames", counts.stragglers);
  }

  /** What was sent to it before comes again: it is about something that is over now. */
  roleChanged(node: SimNode): void {
    const { network, world } = this.#sim;
    if (!this.#on || network.echoes === null) return;
    for (let i = this.#echoes.between(0, 3); i > 0; i--)
      world.at(world.now + this.#echoes.float() * 4 * network.options.delayMax, () => {
        if (this.#on) network.echoes?.again(node.id);
      });
  }

  disk(node: SimNode): DiskFaults {
    const { world, options } = this.#sim;
    const { diskMinMs, diskMaxMs, families } = options;
    return {
      latency: () => {
        if (!this.#on) return diskMinMs + world.prng.float();
        const stalled = families.has("disk-stall") && world.prng.chance(0.01);
        const base = diskMinMs + world.prng.float() * (diskMaxMs - diskMinMs);
        if (!stalled) {
          if (families.has("slow-disk")) this.count("slow-disk");
          return base;
        }
        this.count("disk-stall");
        const ms = world.prng.pick([100, 700, 3_000, 10_000]) * world.prng.float();
        this.#sim.trace.say(node.id, `disk stalls for ${Math.round(ms)} ms`);
        return ms;
      },
      fails: () => {
        const fails = this.#on && families.has("disk-failure") && world.prng.chance(0.002);
        if (!fails) return false;
        this.count("disk-failure");
        this.#sim.trace.say(node.id, "disk write fails");
        return true;
      },
      slowRead: () => {
        if (!this.#on || !families.has("slow-read") || this.#reads.chance(0.3)) return null;
        this.count("slow-read");
        return {
          ms: this.#reads.pick([5, 50, 500, 3_000]) * this.#reads.float(),
          isOld: this.#reads.chance(0.5),
        };
      },
      readOnly: () => node.readOnly,
    };
  }
}

/** They have struck once they did something to a frame. */
const BY_FRAMES: ReadonlySet<FaultFamily> = new Set([
  "clog",
  "partition",
  "half-open",
  "old-frames",
] as const);

/** Families without a moment of their own (loss, drift at birth, …) work through the options. */
const STRIKES: Strikes = {
  ...PROCESS_STRIKES,
  ...CLOCK_STRIKES,
  ...PATH_STRIKES,
  ...DISK_STRIKES,
  ...LEADER_STRIKES,
  "row-rot": rotRow,
  "rot-and-lag": rotAndLag,
  "long-log": longLog,
  "forgotten-fork": forgottenFork,
  "ask-again": askAgain,
  "odd-apply": applyOddly,
};
