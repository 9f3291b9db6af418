/**
 * 5.2: a leader sends a round of heartbeats every heartbeat interval, by its clock; when it stood still, with the first
 * tick after that. The others' clocks went on: they would elect another one.
 */
import type { Configuration, Message } from "../../../src/raft/types.ts";
import { TICK_MS } from "../../../src/replica/core.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** The interval is counted in whole ticks, and the first one may have been on its way; clocks may be a tenth off. */
const SLACK_MS: Millis = 2.5 * TICK_MS;
/** Between two looks, and some rounding. */
const LOOK_MS: Millis = 110;

interface Spoken {
  /** The last round, or when it began to lead, by the leader's own clock and in virtual time. */
  readonly own: Millis;
  readonly at: Millis;
  /** At the last look: behind a change there may have been nobody to speak to in between. */
  members: Configuration | null;
}

export class LeaderSpeaks implements Invariant {
  readonly #sim: Simulation;
  readonly #spoken = new Map<SimNode, Spoken>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#spoken.delete(node);
  }

  leadership(node: SimNode, { role }: Leadership): void {
    if (role === "leader") this.#speaks(node, isAlone(node) ? LOOK_MS : 0);
    else this.#spoken.delete(node);
  }

  sent(node: SimNode, { type }: Message): void {
    if (type !== "heartbeat") return;
    const spoken = this.#spoken.get(node);
    const pause = node.clock.lastPause;
    // The first round since it stood still for so long that one was due.
    if (spoken !== undefined && pause !== null && spoken.at < pause.from) {
      const { world, options } = this.#sim;
      const awake = world.now - pause.until;
      if (pause.until - pause.from > options.heartbeatMs + SLACK_MS && awake > SLACK_MS)
        this.#sim.fail(
          "5.2",
          `${node.id} stood still, leads on, and sends its first heartbeat ${awake.toFixed(1)} ms later`,
        );
    }
    this.#speaks(node);
  }

  often(): void {
    const { heartbeatMs } = this.#sim.options;
    for (const [node, spoken] of this.#spoken) {
      const { own, members } = spoken;
      spoken.members = node.replica?.core?.configuration ?? null;
      // Before the next look it may have somebody to speak to; behind a change, had nobody until just now.
      if (isAlone(node)) this.#speaks(node, LOOK_MS);
      else if (members !== null && spoken.members !== members) this.#speaks(node);
      else if (!this.#excused(node)) {
        const silent = node.clock.monotonic() - own;
        if (silent > heartbeatMs + SLACK_MS)
          this.#sim.fail(
            "5.2",
            `${node.id} leads and sent no heartbeat for ${silent.toFixed(1)} ms`,
          );
      }
    }
  }

  #speaks(node: SimNode, ahead: Millis = 0): void {
    this.#spoken.set(node, {
      own: node.clock.monotonic() + ahead,
      at: this.#sim.world.now + ahead,
      // When it begins to lead: those that it begins with.
      members: this.#spoken.get(node)?.members ?? node.replica?.core?.configuration ?? null,
    });
  }

  /** It does not lead any more, or did not run until just now. */
  #excused(node: SimNode): boolean {
    const { up, clock, replica, id, disk } = node;
    const core = replica?.core ?? null;
    if (!up || clock.still || core?.role !== "leader" || replica?.removed() !== null) return true;
    if (core.configuration.members[id]?.incarnation !== disk.incarnation || isAlone(node))
      return true;
    return this.#sim.world.now < (clock.lastPause?.until ?? 0) + SLACK_MS;
  }
}

/** It has nobody to speak to. */
function isAlone({ replica }: SimNode): boolean {
  return Object.keys(replica?.core?.configuration.members ?? {}).length === 1;
}
