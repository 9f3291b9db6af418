/**
 * Dissertation 6.2 and 6.4: a leader that hears no quorum leads no more, after two election timeouts at the latest; and
 * a read is answered only when a quorum has answered a round of heartbeats that began behind it.
 */
import type { Configuration, Message, NodeId } from "../../../src/raft/types.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import { isQuorum } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { CoreState, Invariant } from "./invariant.ts";

/** Looks only now and then, and ticks may be late. */
const SLACK_MS: Millis = 300;

interface Members {
  readonly now: Configuration;
  readonly before: Configuration;
  readonly at: Millis;
}

interface Heard {
  readonly term: number;
  readonly pauses: number;
  readonly since: Millis;
  readonly at: Map<NodeId, Millis>;
  /** The newest round that was sent, and that each member has answered. */
  sent: number;
  readonly rounds: Map<NodeId, number>;
  /** The newest round that a quorum had answered, by the configuration of that moment. */
  confirmed: number;
  /** The membership of the newest look, the one before it, and since when it is the newest. */
  members: Members | null;
  /** By who asked and under which number: the round that was sent last before; once for each time it was heard. */
  readonly reads: Map<string, number[]>;
}

export class HeardQuorum implements Invariant {
  readonly #sim: Simulation;
  readonly #heard = new Map<SimNode, Heard>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#heard.delete(node);
  }

  took(node: SimNode, message: Message, before: CoreState, after: CoreState): void {
    const { type, from, term } = message;
    if (before.role !== "leader" || after.role !== "leader" || term !== after.term) return;
    const heard = this.#of(node, term);
    if (type === "append-reply" || type === "heartbeat-reply" || type === "snapshot-reply")
      heard.at.set(from, node.clock.monotonic());
    if (message.type === "heartbeat-reply") {
      heard.rounds.set(from, Math.max(heard.rounds.get(from) ?? 0, message.round));
      for (const round of heard.rounds.values()) this.#confirm(node, heard, round);
    }
    if (message.type !== "read-index") return;
    const key = `${from} ${message.id}`;
    heard.reads.set(key, [...(heard.reads.get(key) ?? []), heard.sent]);
  }

  sent(node: SimNode, message: Message): void {
    const core = node.replica?.core ?? null;
    if (core?.role !== "leader" || message.term !== core.term) return;
    if (message.type === "heartbeat") this.#of(node, core.term).sent = message.round;
    if (message.type !== "read-index-reply") return;
    const heard = this.#of(node, core.term);
    const key = `${message.to} ${message.id}`;
    const asked = heard.reads.get(key) ?? [];
    // Refused, by a leader with too many reads, is what came last: an earlier copy of it still waits.
    const isRefusal = message.index === null;
    const before = isRefusal ? asked.at(-1) : asked[0];
    const more = isRefusal ? asked.slice(0, -1) : asked.slice(1);
    if (more.length === 0) heard.reads.delete(key);
    else heard.reads.set(key, more);
    if (before === undefined || message.index === null) return;
    // A change of the membership may be logged between the answer that confirmed it and the word of that.
    this.#confirm(node, heard, before + 1);
    if (heard.confirmed <= before)
      this.#sim.fail(
        "6.4",
        `${node.id} answers the read ${message.id} of ${message.to}, asked behind round ${before}; heard were ${JSON.stringify([...heard.rounds])}`,
      );
    if (core.termAt(core.commit) !== core.term)
      this.#sim.fail("6.4", `${node.id} answers a read and committed nothing in term ${core.term}`);
  }

  #confirm(node: SimNode, heard: Heard, round: number): void {
    const configuration = node.replica?.core?.configuration;
    if (configuration === undefined || round <= heard.confirmed) return;
    const answered = (id: NodeId): boolean =>
      id === node.id || (heard.rounds.get(id) ?? 0) >= round;
    if (isQuorum(configuration, answered)) heard.confirmed = round;
  }

  often(): void {
    const { electionTimeoutMs } = this.#sim.options;
    for (const node of this.#sim.nodes) {
      const core = node.replica?.core ?? null;
      if (!node.up || node.clock.still || core?.role !== "leader") continue;
      const heard = this.#of(node, core.term);
      const { at, since, term } = heard;
      const now = node.clock.monotonic();
      const { configuration } = core;
      const known = heard.members;
      const members =
        known?.now === configuration
          ? known
          : { now: configuration, before: known?.now ?? configuration, at: now };
      heard.members = members;
      const oldest = now - 2 * electionTimeoutMs - SLACK_MS;
      if (since >= oldest) continue;
      const hears = (id: NodeId): boolean => id === node.id || (at.get(id) ?? since) >= oldest;
      // Whoever is needed by a new membership need not have been heard before it was one.
      const before = members.at >= oldest ? members.before : configuration;
      if (!isQuorum(configuration, hears) && !isQuorum(before, hears))
        this.#sim.fail(
          "6.2",
          `${node.id} leads term ${term} and heard no quorum for ${2 * electionTimeoutMs} ms: ${JSON.stringify([...at])} at ${now}`,
        );
    }
  }

  /** In this leadership, since the process last stood still. */
  #of(node: SimNode, term: number): Heard {
    const { clock } = node;
    const known = this.#heard.get(node);
    if (known?.term === term && known.pauses === clock.pauses) return known;
    const kept = known?.term === term ? known : null;
    const heard: Heard = {
      term,
      pauses: clock.pauses,
      since: clock.monotonic(),
      at: new Map(),
      sent: kept?.sent ?? 0,
      rounds: kept?.rounds ?? new Map<NodeId, number>(),
      confirmed: kept?.confirmed ?? 0,
      members: kept?.members ?? null,
      reads: kept?.reads ?? new Map<string, number[]>(),
    };
    this.#heard.set(node, heard);
    return heard;
  }
}
