/**
 * T1: who has heard just now that most of the others' wall clocks disagree with its own does not stand for election,
 * however that began; its first entry would carry its wrong time. `log-time` sees what comes of it, and only where
 * nothing disturbs the members; this is what a member knew in the moment in which it stands.
 */
import type { Role } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Beyond it clocks disagree; what drift makes of a word of some seconds ago is on the member's side. */
const AGREE_MAX_MS: Millis = 5_000 + 1_500;
/** A word counts for so long at least, whatever becomes of the connection. */
const FRESH_MS: Millis = 2_500;

interface Word {
  readonly at: Millis;
  /** By how much the other clock was ahead of the own one. */
  readonly ahead: Millis;
  readonly ownOffset: Millis;
  readonly pauses: number;
}

export class OddClock implements Invariant {
  readonly #sim: Simulation;
  readonly #words = new Map<SimNode, Map<string, Word>>();
  readonly #roles = new Map<SimNode, Role>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  started(node: SimNode): void {
    this.#words.set(node, new Map());
    this.#roles.delete(node);
  }

  heardClock(node: SimNode, from: string, wall: Millis): void {
    const { wallOffset, pauses } = node.clock;
    const ahead = wall - node.clock.wall();
    this.#words
      .get(node)
      ?.set(from, { at: this.#sim.world.now, ahead, ownOffset: wallOffset, pauses });
  }

  leadership(node: SimNode, { role }: Leadership): void {
    const before = this.#roles.get(node) ?? "follower";
    this.#roles.set(node, role);
    // Who has won a pre-vote goes on, though its clock may jump meanwhile.
    const stands = role === "pre-candidate" || (role === "candidate" && before === "follower");
    if (stands) this.#check(node);
  }

  #check(node: SimNode): void {
    const { now } = this.#sim.world;
    let agree = 1;
    const odd: string[] = [];
    for (const [from, { at, ahead, ownOffset, pauses }] of this.#words.get(node) ?? []) {
      const off = ahead - (node.clock.wallOffset - ownOffset);
      if (Math.abs(off) <= AGREE_MAX_MS || pauses !== node.clock.pauses) agree += 1;
      else if (at < now && now - at <= FRESH_MS) odd.push(from);
    }
    if (odd.length > agree)
      this.#sim.fail(
        "T1",
        `${node.id} stands for election, though the clocks of ${odd.join(" ")} disagree with its own`,
      );
  }
}
