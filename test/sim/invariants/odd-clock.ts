/**
 * T1: who has heard just now that most of the others' wall clocks disagree with its own does not stand for election,
 * however that began; its first entry would carry its wrong time. `log-time` sees what comes of it, and only where
 * nothing disturbs the members; this is what a member knew in the moment in which it stands. Nor does the founding record
 * begin log time with such a clock.
 */
import type { PersistOp, Role } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import { decodeEntry } from "../../../src/replica/envelope.ts";
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
  #isFounded = false;

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

  /** Who founds is the first that writes the record; the others are told of it. A cluster out of another one has its own. */
  appending(node: SimNode, { entries }: PersistOp): void {
    if (this.#isFounded) return;
    for (const entry of entries) {
      if (entry.kind !== "bootstrap") continue;
      this.#isFounded = true;
      if (this.#sim.reborn === null) this.#founds(node, decodeEntry(entry).now);
    }
  }

  #founds(node: SimNode, now: Millis): void {
    if (Math.abs(now - node.clock.wall()) > AGREE_MAX_MS) return;
    const words = this.#words.get(node) ?? new Map<string, Word>();
    // More than half of all clocks, its own included, on one side of its own: so is the middle one.
    for (const side of [1, -1]) {
      const odd = [...words.values()].filter(
        (word) => this.#isFresh(word) && side * this.#off(node, word) > AGREE_MAX_MS,
      );
      if (2 * odd.length > words.size + 1)
        this.#sim.fail(
          "T1",
          `${node.id} founds the cluster by its own clock, with which ${odd.length} others disagree`,
        );
    }
  }

  /** By how much the other clock is ahead of the own one now; 0: that cannot be told. */
  #off({ clock }: SimNode, { ahead, ownOffset, pauses }: Word): Millis {
    return pauses === clock.pauses ? ahead - (clock.wallOffset - ownOffset) : 0;
  }

  #isFresh({ at }: Word): boolean {
    const { now } = this.#sim.world;
    return at < now && now - at <= FRESH_MS;
  }

  leadership(node: SimNode, { role }: Leadership): void {
    const before = this.#roles.get(node) ?? "follower";
    this.#roles.set(node, role);
    // Who has won a pre-vote goes on, though its clock may jump meanwhile.
    const stands = role === "pre-candidate" || (role === "candidate" && before === "follower");
    if (stands) this.#check(node);
  }

  #check(node: SimNode): void {
    let agree = 1;
    const odd: string[] = [];
    for (const [from, word] of this.#words.get(node) ?? [])
      if (Math.abs(this.#off(node, word)) <= AGREE_MAX_MS) agree += 1;
      else if (this.#isFresh(word)) odd.push(from);
    if (odd.length > agree)
      this.#sim.fail(
        "T1",
        `${node.id} stands for election, though the clocks of ${odd.join(" ")} disagree with its own`,
      );
  }
}
