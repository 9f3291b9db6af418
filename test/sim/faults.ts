/** What goes wrong, when, and for how long: each family that is on strikes at moments drawn from the seed. */
import type { Millis } from "../../src/replica/ports.ts";
import type { DiskFaults } from "./disk.ts";
import type { SimNode } from "./node.ts";
import { longLog } from "./long-log.ts";
import { applyOddly } from "./odd-apply.ts";
import { type FaultFamily, streamOf } from "./options.ts";
import { rotAndLag } from "./rot-and-lag.ts";
import { rotRow } from "./rot.ts";
import type { Simulation } from "./simulation.ts";
import { Prng } from "./world.ts";

/** Each kind of Raft's messages. */
const SIEVED = [
  "vote",
  "vote-reply",
  "append",
  "commit",
  "append-reply",
  "heartbeat",
  "heartbeat-reply",
  "read-index",
  "read-index-reply",
  "timeout-now",
  "snapshot",
  "snapshot-reply",
] as const;
const HOUR_MS: Millis = 3_600_000;
/** How often is looked whether a disk is busy. */
const HANG_LOOK_MS: Millis = 0.5;

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

type Strike = (sim: Simulation, prng: Prng) => boolean;

const anyUp = (sim: Simulation, prng: Prng): SimNode | null => {
  const up = sim.nodes.filter((node) => node.up);
  return up.length === 0 ? null : prng.pick(up);
};

/** Families without a moment of their own (loss, drift at birth, …) work through the options. */
const STRIKES: Partial<Record<FaultFamily, Strike>> = {
  crash: (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null) return false;
    sim.crashed(node, "none");
    return true;
  },
  "crash-at-effect": (sim, prng) => {
    const node = anyUp(sim, prng);
    node?.killAfterEffects(prng.between(0, 25));
    return node !== null;
  },
  "power-loss": (sim, prng) => {
    for (const node of sim.nodes) if (prng.chance(0.5)) node.checkpoint();
    if (prng.chance(0.5)) return false;
    const all = prng.chance(0.3);
    const struck = all ? sim.nodes.filter((node) => node.up) : [anyUp(sim, prng)];
    for (const node of struck) if (node !== null) sim.crashed(node, "to-checkpoint");
    return true;
  },
  "state-loss": (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null) return false;
    sim.crashed(node, "all");
    return true;
  },
  pause: (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null) return false;
    const ms = prng.pick([50, 50, 300, 300, 1_500, 6_000, 20_000, 40_000]) * (0.5 + prng.float());
    sim.trace.say(node.id, `stands still for ${Math.round(ms)} ms`);
    node.clock.pause(ms);
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return true;
  },
  "all-pause": (sim, prng) => {
    const up = sim.nodes.filter((node) => node.up && !node.clock.still);
    const ms = prng.pick([2_000, 4_000, 8_000]) * (0.8 + 0.4 * prng.float());
    sim.trace.say("sim", `all members stand still for ${Math.round(ms)} ms`);
    for (const node of up) node.clock.pause(ms);
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return up.length > 0;
  },
  suspend: (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null || node.clock.still) return false;
    const ms = prng.pick([300, 3_000, 15_000]) * (0.5 + prng.float());
    sim.trace.say(node.id, `its machine stands still for ${Math.round(ms)} ms`);
    node.clock.suspend(ms);
    node.suspendedMs += ms;
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return true;
  },
  partition: (sim, prng) => {
    partition(sim, prng);
    return true;
  },
  clog: (sim, prng) => {
    const from = prng.pick(sim.nodes);
    const to = prng.pick(sim.nodes);
    sim.network.clog(from.id, to.id, prng.float() * prng.pick([50, 500, 5_000]));
    return true;
  },
  break: (sim, prng) => anyUp(sim, prng)?.transport?.break(prng.pick(sim.nodes).id) ?? false,
  "old-frames": (sim, prng) =>
    anyUp(sim, prng)?.transport?.break(prng.pick(sim.nodes).id, true) ?? false,
  "half-open": (sim, prng) =>
    anyUp(sim, prng)?.transport?.halfOpen(prng.pick(sim.nodes).id) ?? false,
  "disk-full": (sim, prng) => {
    const node = prng.pick(sim.nodes);
    if (node.diskFull) return false;
    sim.trace.say(node.id, "disk is almost full");
    node.diskFull = true;
    sim.world.at(sim.world.now + prng.pick([500, 3_000, 10_000]), () => {
      node.diskFull = false;
    });
    return true;
  },
  "read-only": (sim, prng) => {
    const node = anyUp(sim, prng);
    if (node === null || node.readOnly) return false;
    sim.trace.say(node.id, "disk is read-only");
    node.readOnly = true;
    sim.world.at(sim.world.now + prng.pick([300, 3_000]), () => {
      node.readOnly = false;
    });
    return true;
  },
  compaction: (sim, prng) => {
    const node = anyUp(sim, prng);
    return node?.compact(Math.max(0, node.applied - prng.pick([0, 0, 3, 30]))) ?? false;
  },
  usurp: (sim, prng) => usurp(sim, prng),
  "row-rot": rotRow,
  "rot-and-lag": rotAndLag,
  "long-log": longLog,
  "odd-apply": applyOddly,
  echo: (sim, prng) => {
    for (let i = prng.between(3, 12); i > 0; i--)
      sim.world.at(sim.world.now + 1_000 * prng.float(), () => {
        if (sim.mood.wild()) sim.network.echoes?.again(prng.pick(sim.nodes).id);
      });
    return false;
  },
  sieve: (sim, prng) => {
    const to = prng.pick(sim.nodes);
    const type = prng.pick(SIEVED);
    const ms = prng.pick([100, 800, 4_000]) * (0.5 + prng.float());
    const froms = prng.chance(0.6) ? sim.nodes : [prng.pick(sim.nodes)];
    sim.trace.say("net", `no ${type} reaches ${to.id} for ${Math.round(ms)} ms`);
    for (const from of froms) sim.network.sieve(from.id, to.id, type, ms);
    sim.disturbed();
    sim.world.at(sim.world.now + ms, () => sim.disturbed());
    return false;
  },
  "leader-hang": hangLeader,
  "disk-hang": (sim, prng) => {
    const node = anyUp(sim, prng);
    const store = node?.store ?? null;
    if (node === null || store === null || store.hung) return false;
    sim.trace.say(node.id, "disk hangs");
    store.hang();
    const ms = prng.pick([1_000, 5_000, 1_000_000]);
    sim.world.at(sim.world.now + ms, () => store.recover());
    return true;
  },
  drift: (sim, prng) => {
    const node = prng.pick(sim.nodes);
    node.rate = 0.9 + prng.float() * 0.2;
    node.clock.setRate(node.rate);
    return true;
  },
  "wall-jump": (sim, prng) => {
    const wrong = sim.nodes.filter((node) => Math.abs(node.wallOffset) > 1_000);
    const node = prng.pick(sim.nodes);
    const back = wrong.length > 0 && prng.chance(0.5) ? prng.pick(wrong) : null;
    // A minority at most is wrong: the rest is what "right" means.
    if (back === null && 2 * (wrong.length + 1) >= sim.nodes.length && !wrong.includes(node))
      return false;
    const offset = back === null ? prng.pick([-1, 1]) * prng.pick([3_000, 60_000, HOUR_MS]) : 0;
    sim.setWall(back ?? node, offset * (0.5 + prng.float() / 2));
    return true;
  },
  transfer: (sim, prng) => {
    const leader = sim.nodes.find((node) => node.leadership?.role === "leader" && node.up);
    if (leader === undefined) return false;
    sim.transfer(leader, prng.chance(0.5) ? prng.pick(sim.nodes).id : null);
    // Just then there is work for it.
    for (let i = prng.between(0, 3); i > 0; i--)
      sim.world.at(sim.world.now + prng.float() * 10, () => sim.writeAt(leader));
    return true;
  },
};

/**
 * A leader and a minority are cut off while it is given work, so that their logs end in what the others never
 * saw; now and then with a disk that is still busy with it when they come back under the next leader.
 */
function usurp(sim: Simulation, prng: Prng): boolean {
  const leader = sim.leader();
  if (leader === null || sim.nodes.length < 3) return false;
  const others = sim.nodes.filter((node) => node !== leader).toSorted(() => prng.float() - 0.5);
  const most = Math.floor((sim.nodes.length - 1) / 2);
  const side = [leader, ...others.slice(0, prng.between(0, most - 1))];
  const cuts = side.flatMap((a) =>
    sim.nodes.filter((b) => !side.includes(b)).map((b) => [a.id, b.id] as const),
  );
  sim.trace.say("net", `cuts off the leader ${side.map(({ id }) => id).join(" ")}`);
  const set = (cut: boolean): void => {
    for (const [a, b] of cuts) {
      sim.network.setCut(a, b, cut);
      sim.network.setCut(b, a, cut);
    }
  };
  set(true);
  if (prng.chance(0.4)) {
    hurry(sim, prng, leader, side, () => set(false));
    return true;
  }
  // Now and then so much that its log becomes the longest of all.
  for (let i = prng.pick([prng.between(1, 6), 20]); i > 0; i--)
    sim.world.at(sim.world.now + prng.float() * 100, () => sim.writeAt(leader));
  const { electionTimeoutMs } = sim.options;
  const ms = electionTimeoutMs * prng.pick([0.3, 1, 2, 3, 5]) + prng.float() * 500;
  const slow = prng.pick(side);
  if (prng.chance(0.5)) hangWithWork(sim, slow, 200, ms + prng.float() * 4 * electionTimeoutMs);
  const successorDies = prng.chance(0.4);
  sim.world.at(sim.world.now + ms, () => {
    sim.disturbed();
    set(false);
    if (successorDies) dieSoon(sim, prng, side);
  });
  return true;
}

/**
 * The disk of a leader hangs while the others go on, so that it has to give leadership up, now and then by itself: what
 * would hand it over gets lost. Now and then it hears of nobody afterwards, and wants to lead again with a disk that has
 * nothing to show for itself.
 */
function hangLeader(sim: Simulation, prng: Prng): boolean {
  const leader = sim.leader();
  const store = leader?.store ?? null;
  if (leader === null || store === null || store.hung) return false;
  const { electionTimeoutMs } = sim.options;
  sim.trace.say(leader.id, "disk hangs while it leads");
  store.hang();
  const ms = 1_000 + electionTimeoutMs * prng.pick([2, 4, 6]);
  for (let i = 0; i < 4; i++) sim.world.at(sim.world.now + 20 * i, () => sim.writeAt(leader));
  if (prng.chance(0.5))
    for (const { id } of sim.nodes) sim.network.sieve(leader.id, id, "timeout-now", ms);
  sim.world.at(sim.world.now + ms, () => store.recover());
  if (!prng.chance(0.6)) return true;
  const others = sim.nodes.filter((node) => node !== leader);
  const set = (cut: boolean): void => {
    for (const { id } of others) sim.network.setCut(id, leader.id, cut);
  };
  sim.world.at(sim.world.now + ms - electionTimeoutMs, () => {
    if (sim.mood.wild()) set(true);
  });
  sim.world.at(sim.world.now + ms + electionTimeoutMs * prng.pick([1, 3]), () => {
    sim.disturbed();
    set(false);
  });
  return true;
}

/**
 * From the moment in which a write is under way: what comes after it is another write, so that the one is answered and
 * the other is not when the disk comes back.
 */
function hangWithWork(sim: Simulation, node: SimNode, looks: number, ms: Millis): void {
  sim.world.at(sim.world.now + HANG_LOOK_MS, () => {
    const { store } = node;
    if (store === null || store.hung) return;
    if (store.pending === 0 && looks > 0) {
      hangWithWork(sim, node, looks - 1, ms);
      return;
    }
    store.hang();
    sim.world.at(sim.world.now + ms, () => store.recover());
  });
}

/** Whoever came back stands against those who followed its successor, with a log of another kind. */
function dieSoon(sim: Simulation, prng: Prng, side: readonly SimNode[]): void {
  sim.world.at(sim.world.now + prng.float() * 20, () => {
    const leader = sim.leader();
    // Not once all is healed: from there on leaders stay.
    if (sim.mood.wild() && leader !== null && !side.includes(leader)) sim.crashed(leader, "none");
  });
}

/**
 * The next leader forgets its log as soon as it may, and then the cut is over: who comes back gets a snapshot that
 * ends before its own log does, which holds what nobody else ever saw.
 */
function hurry(
  sim: Simulation,
  prng: Prng,
  leader: SimNode,
  side: readonly SimNode[],
  heal: () => void,
): void {
  for (let i = 0; i < 6; i++) sim.world.at(sim.world.now + 8 * i, () => sim.writeAt(leader));
  const deadline = sim.world.now + 6 * sim.options.electionTimeoutMs;
  const look = (): void => {
    const next = sim.nodes.find(
      (node) => !side.includes(node) && node.up && node.leadership?.active === true,
    );
    if (next === undefined && sim.world.now < deadline) {
      sim.world.at(sim.world.now + 2, look);
      return;
    }
    next?.compact(next.applied);
    sim.world.at(sim.world.now + 5, () => {
      sim.disturbed();
      heal();
      if (prng.chance(0.3)) dieSoon(sim, prng, side);
    });
  };
  look();
}

function partition(sim: Simulation, prng: Prng): void {
  const { network, nodes, world } = sim;
  const ids = nodes.map(({ id }) => id);
  const cuts: [(typeof ids)[number], (typeof ids)[number]][] = [];
  const between = (some: readonly (typeof ids)[number][], oneWay: boolean): void => {
    for (const a of some) {
      for (const b of ids) {
        if (some.includes(b)) continue;
        cuts.push([a, b]);
        if (!oneWay) cuts.push([b, a]);
      }
    }
  };
  const kind = prng.pick(["side", "one-way", "isolate", "bridge"] as const);
  switch (kind) {
    case "side":
    case "one-way":
      between(
        ids.filter(() => prng.chance(0.5)),
        kind === "one-way",
      );
      break;
    case "isolate": {
      const leader = nodes.find((node) => node.leadership?.role === "leader");
      between([prng.chance(0.5) && leader !== undefined ? leader.id : prng.pick(ids)], false);
      break;
    }
    case "bridge": {
      // Two sides that overlap in one member.
      const bridge = prng.pick(ids);
      const left = ids.filter((id) => id !== bridge && prng.chance(0.5));
      for (const a of left)
        for (const b of ids) if (b !== bridge && !left.includes(b)) cuts.push([a, b], [b, a]);
      break;
    }
  }
  const ms = prng.pick([100, 800, 4_000, 12_000]) * (0.5 + prng.float());
  sim.trace.say(
    "net",
    `${kind}: ${cuts.map(([a, b]) => `${a}>${b}`).join(" ")} for ${Math.round(ms)} ms`,
  );
  for (const [a, b] of cuts) network.setCut(a, b, true, true);
  world.at(world.now + ms, () => {
    sim.disturbed();
    for (const [a, b] of cuts) network.setCut(a, b, false);
  });
}
