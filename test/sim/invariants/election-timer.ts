/**
 * 5.2: only a leader's word and a granted vote set an election timer back, and both do. Looked at with every message.
 * From outside, too: a voter that heard of neither, and did not ask for votes itself, for two election timeouts (the
 * longest it may draw) has been set back by something else.
 */
import type { Message } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import { votes } from "../membership.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { type CoreState, type Invariant, isWordOfLeader } from "./invariant.ts";

/** A few ticks, and what an excuse may have lasted on since the look before it ended. */
const SLACK_MS: Millis = 200;

interface Timer {
  /** By the member's own clock. */
  since: Millis;
  /** How often it had stood still by then. */
  pauses: number;
}

export class ElectionTimer implements Invariant {
  readonly #sim: Simulation;
  readonly #timers = new Map<SimNode, Timer>();

  readonly #led = new Set<SimNode>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#set(node);
  }

  installed(node: SimNode): void {
    this.#set(node);
  }

  leadership(node: SimNode, { role }: Leadership): void {
    // Who led waits a whole timeout from then on.
    if (role !== "follower" || this.#led.has(node)) this.#set(node);
    if (role === "leader") this.#led.add(node);
    else this.#led.delete(node);
  }

  heard(node: SimNode, message: Message): void {
    const { type, term } = message;
    if ((isWordOfLeader(type) || type === "timeout-now") && term >= (node.leadership?.term ?? 0))
      this.#set(node);
  }

  took({ id }: SimNode, message: Message, before: CoreState, after: CoreState): void {
    const { type, term, from } = message;
    const ofLeader = isWordOfLeader(type) && term >= before.term;
    const granted = message.type === "vote" && !message.pre && after.vote === from;
    // Who begins to ask, to lead or to follow waits a whole timeout from then on.
    const begins = before.role === "leader" || after.role !== "follower";
    if (after.elapsedTicks < before.elapsedTicks && !ofLeader && !granted && !begins)
      this.#sim.fail("5.2", `${id} is set back in term ${after.term} by ${told(message)}`);
    const follows = ofLeader && after.leader === from && after.term === term;
    const voted = granted && before.vote !== from && after.term === term;
    if ((follows || voted) && after.elapsedTicks > 0)
      this.#sim.fail("5.2", `${id} is not set back in term ${after.term} by ${told(message)}`);
  }

  sent(node: SimNode, message: Message): void {
    if (message.type === "vote") this.#set(node);
    if (message.type === "vote-reply" && message.granted && !message.pre) this.#set(node);
  }

  often(): void {
    // Whose disk was slow does not campaign until a write was quick: that is not seen from outside.
    const { families } = this.#sim.options;
    if (families.has("slow-disk") || families.has("disk-stall") || families.has("disk-hang"))
      return;
    for (const node of this.#sim.nodes) {
      const timer = this.#timers.get(node);
      if (timer === undefined || !node.up) continue;
      if (this.#excused(node, timer)) {
        this.#set(node);
        continue;
      }
      const waited = node.clock.monotonic() - timer.since;
      // Whose state is wrong leaves so many to the others first.
      const timeouts = (node.replica?.condemned() ?? null) === null ? 2 : 4;
      if (waited > timeouts * this.#sim.options.electionTimeoutMs + SLACK_MS)
        this.#sim.fail(
          "5.2",
          `${node.id} heard of no leader for ${Math.round(waited)} ms and does not ask for votes`,
        );
    }
  }

  /** It leads, may not vote or campaign, was removed, did not run, waits for its disk, or installs a snapshot. */
  #excused(node: SimNode, timer: Timer): boolean {
    const { id, clock, replica, store, leadership, disk } = node;
    const membership = store?.membership ?? null;
    return (
      replica === null ||
      // Nothing runs while a snapshot takes the place of the log, which waits for the disk.
      replica.core === null ||
      store === null ||
      membership === null ||
      leadership === null ||
      leadership.term === 0 ||
      leadership.role === "leader" ||
      !votes(membership.configuration, id) ||
      membership.configuration.members[id]?.incarnation !== disk.incarnation ||
      replica.removed() !== null ||
      clock.still ||
      clock.pauses !== timer.pauses ||
      replica.clockAlarm() !== null ||
      store.pending > 0 ||
      node.owes !== null ||
      disk.installing !== null
    );
  }

  #set(node: SimNode): void {
    this.#timers.set(node, { since: node.clock.monotonic(), pauses: node.clock.pauses });
  }
}

function told({ type, from, term }: Message): string {
  return `the ${type} of ${from} in term ${term}`;
}
