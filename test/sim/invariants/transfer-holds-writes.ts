/**
 * Dissertation 3.10: a leader that hands leadership over appends no command until an election timeout has passed;
 * else the target could never catch up; and the target has caught up when it is told.
 */
import type { Message, PersistOp } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { FaultFamily } from "../options.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Ticks are counted, and the first one may come at once. */
const SLACK_MS: Millis = 20;

interface Transfer {
  readonly term: number;
  readonly membershipAt: number;
  /** By the leader's own clock. */
  readonly until: Millis;
}

/** To whom a leader hands over, and since when, by its own clock. */
interface Handing {
  readonly to: string;
  readonly term: number;
  readonly pauses: number;
  readonly since: Millis;
}
const ABORT_SLACK_MS: Millis = 1_000;
const RESTLESS: readonly FaultFamily[] = ["disk-full", "skew", "wall-jump"];

export class TransferHoldsWrites implements Invariant {
  readonly #sim: Simulation;
  readonly #under = new Map<SimNode, Transfer>();
  readonly #handing = new Map<SimNode, Handing>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** A transfer that comes to nothing is over after an election timeout: this looks for one that is never over. */
  often(): void {
    const { families, electionTimeoutMs } = this.#sim.options;
    // There leaders try to hand over by themselves, again and again.
    if (RESTLESS.some((family) => families.has(family))) return;
    for (const node of this.#sim.nodes) {
      const { clock, id } = node;
      const core = node.replica?.core ?? null;
      const to = core?.transferTarget ?? null;
      if (!node.up || clock.still || core === null || to === null || this.#sim.leaving.has(id)) {
        this.#handing.delete(node);
        continue;
      }
      const now = clock.monotonic();
      const known = this.#handing.get(node);
      if (known?.to !== to || known.term !== core.term || known.pauses !== clock.pauses)
        this.#handing.set(node, { to, term: core.term, pauses: clock.pauses, since: now });
      else if (now - known.since > 3 * electionTimeoutMs + ABORT_SLACK_MS)
        this.#sim.fail(
          "3.10",
          `${id} hands leadership to ${to} for ${Math.round(now - known.since)} ms and does not give up`,
        );
    }
  }

  transferring(node: SimNode): void {
    this.#handing.delete(node);
    const { leadership, clock, store } = node;
    // One whose disk is almost full hands over by itself, at a time that nobody sees from outside.
    if (leadership?.role !== "leader" || this.#sim.options.families.has("disk-full")) return;
    const known = this.#under.get(node);
    // A second one is refused while the first is under way.
    if (known?.term === leadership.term && clock.monotonic() < known.until + 2 * SLACK_MS) return;
    this.#under.set(node, {
      term: leadership.term,
      membershipAt: store?.membership?.index ?? 0,
      until: clock.monotonic() + this.#sim.options.electionTimeoutMs - SLACK_MS,
    });
  }

  leadership(node: SimNode, { role }: Leadership): void {
    if (role !== "leader") this.#under.delete(node);
  }

  started(node: SimNode): void {
    this.#under.delete(node);
  }

  /** Whoever is told to take over holds all that the leader does: it could not win, and would end this leadership. */
  sent(node: SimNode, message: Message): void {
    const core = node.replica?.core ?? null;
    if (message.type !== "timeout-now" || core?.role !== "leader") return;
    const { lastIndex, lastTerm } = core;
    const target = this.#sim.nodes.find(({ id }) => id === message.to);
    if (target === undefined || target.rolledBack || target.owes !== null) return;
    // Its folder may be another since the leader heard of it; who is told nothing ends nothing.
    if (node.transport?.isConnectedTo(target.id, target.transport) !== true) return;
    const { entries } = target.disk;
    if (core.term === message.term && entries[lastIndex - 1]?.term !== lastTerm)
      this.#sim.fail(
        "3.10",
        `${node.id} hands leadership to ${message.to}, whose log ends at ${entries.length}, its own at ${lastIndex}`,
      );
  }

  appending(node: SimNode, { entries }: PersistOp): void {
    const transfer = this.#under.get(node);
    if (transfer === undefined || node.clock.monotonic() >= transfer.until) return;
    if (node.store?.membership?.index !== transfer.membershipAt) return;
    const written = entries.find(({ kind, term }) => kind === "command" && term === transfer.term);
    if (written !== undefined && node.leadership?.term === transfer.term)
      this.#sim.fail("3.10", `${node.id} appends ${written.index} while it hands leadership over`);
  }
}
