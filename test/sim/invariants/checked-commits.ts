/**
 * I5, 5.3: a member that hears a message commits no further than that message checked its log: an append to the last
 * entry that it bears, news of a commit to the position that they name, if the own log holds that.
 */
import type { Message } from "../../../src/raft/types.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { CoreState, Invariant } from "./invariant.ts";

export class CheckedCommits implements Invariant {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  took(node: SimNode, message: Message, before: CoreState, after: CoreState): void {
    if (after.commit <= before.commit || after.role === "leader") return;
    // Counting answers as its last deed, a leader that was removed commits and leads no more.
    if (before.role === "leader") return;
    const most = mayCommit(message);
    if (after.commit > most)
      this.#sim.fail(
        "5.3",
        `${node.id} commits ${after.commit} by the ${message.type} of ${message.from}, which vouches for ${most}`,
      );
    if (message.type !== "commit" && message.type !== "append") return;
    const { prevIndex, prevTerm } = message;
    const own = node.replica?.core?.termAt(prevIndex) ?? null;
    // What an append goes on from may be compacted here. News of a commit check nothing but this position.
    if (own === prevTerm || (own === null && message.type === "append")) return;
    this.#sim.fail(
      "5.3",
      `${node.id} commits ${after.commit} by the ${message.type} of ${message.from}, and holds ${own === null ? "nothing" : `term ${own}`} at ${prevIndex}, not ${prevTerm}`,
    );
  }
}

function mayCommit(message: Message): number {
  switch (message.type) {
    case "append":
      return Math.min(message.commit, message.prevIndex + message.entries.length);
    case "commit":
      return Math.min(message.commit, message.prevIndex);
    case "heartbeat":
      return message.commit;
    case "snapshot":
      return message.snapshot.index;
    case "vote":
    case "vote-reply":
    case "append-reply":
    case "heartbeat-reply":
    case "read-index":
    case "read-index-reply":
    case "timeout-now":
    case "snapshot-reply":
      return 0;
  }
}
