/**
 * I12: a leader has at most one membership that is not committed, and neighbours share quorums. A learner that is
 * promoted holds the log, as far as its leader can know. What a member takes for the membership is the newest one in its
 * log, also when that was cut back (dissertation 4.1).
 */
import { asIndex, type Configuration, type PersistOp } from "../../../src/raft/types.ts";
import { decodeConfigurationEntry } from "../../../src/raft/configuration.ts";
import { shareQuorums, votes } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Entries that a learner may lack when it is promoted: what a core allows to be in flight. */
const LAG_MAX = 64;
/** Between a change in the core and its write there may be one more turn of the event loop. */
const TURN_MS = 5;

export class Memberships implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  appending(node: SimNode, { entries }: PersistOp): void {
    const { leadership, store, replica } = node;
    if (leadership?.role !== "leader" || store === null || replica === null) return;
    for (const entry of entries) {
      if (entry.kind !== "config" || entry.term !== leadership.term) continue;
      const commit = replica.core?.commit ?? asIndex(0);
      const committed = replica.core?.termAt(commit) ?? null;
      if (committed !== null && committed !== leadership.term)
        this.#sim.fail(
          "4.1",
          `${node.id} changes the membership at ${entry.index} before it has committed an entry of term ${leadership.term}`,
        );
      if (store.membershipsBehind(commit) > 0)
        this.#sim.fail(
          "I12",
          `${node.id} appends a membership at ${entry.index}, the one before it is not committed (${commit})`,
        );
      const before = store.membership?.configuration;
      if (before !== undefined)
        this.#follows(node, before, decodeConfigurationEntry(entry), entry.index);
    }
  }

  #follows(node: SimNode, before: Configuration, after: Configuration, index: number): void {
    if (!shareQuorums(before, after))
      this.#sim.fail(
        "I12",
        `the membership at ${index} shares no quorum with the one before it: ${JSON.stringify([before, after])}`,
      );
    for (const id of after.voters) {
      if (votes(before, id) || !before.learners.includes(id)) continue;
      const learner = this.#sim.nodes.find((other) => other.id === id);
      const wanted = Math.max(1, index - 1 - LAG_MAX);
      const term = node.store?.handed[wanted - 1]?.term;
      if (learner !== undefined && isNews(node, learner)) continue;
      // Lost just now, which nobody can have told the leader: what is promoted is the folder that it had.
      const { incarnation } = after.members[id] ?? {};
      if (incarnation !== "" && learner?.disk.incarnation !== incarnation) continue;
      if (learner?.disk.entries[wanted - 1]?.term !== term)
        this.#sim.fail(
          "I13",
          `${id} is promoted at ${index} and does not hold ${wanted}: its log ends at ${learner?.disk.entries.length}`,
        );
    }
  }

  often(): void {
    for (const { id, up, replica, store } of this.#sim.nodes) {
      const core = replica?.core ?? null;
      const membership = store?.membership ?? null;
      if (!up || core?.role !== "leader" || membership === null) continue;
      if (membership.index <= core.commit && !votes(membership.configuration, id))
        this.#sim.fail(
          "4.2.2",
          `${id} leads term ${core.term} on, and its removal at ${membership.index} is committed`,
        );
    }
  }

  marked(): void {
    for (const node of this.#sim.nodes)
      if (this.#differs(node))
        this.#sim.world.at(this.#sim.world.now + TURN_MS, () => {
          if (this.#differs(node))
            this.#sim.fail(
              "I12",
              `${node.id} goes by ${JSON.stringify(node.replica?.status().configuration)}, its log says ${JSON.stringify(node.store?.membership)}`,
            );
        });
  }

  #differs({ up, clock, replica, store }: SimNode): boolean {
    if (!up || clock.still || replica === null || store === null || store.membership === null)
      return false;
    const { core } = replica;
    if (core === null) return false;
    const { configuration, lastIndex } = core;
    if (lastIndex !== store.handed.length) return false;
    return !Bun.deepEquals(configuration, store.membership.configuration);
  }
}

/**
 * The learner lost its log, or the end of it when an old copy of its folder was put back, and neither told the leader nor is the
 * process connected that began without it.
 */
function isNews(leader: SimNode, learner: SimNode): boolean {
  const lacks = learner.owes !== null || learner.rolledBack;
  if (!lacks || learner.hasTold(leader)) return false;
  return leader.transport?.isConnectedTo(learner.id, learner.transport) !== true;
}
