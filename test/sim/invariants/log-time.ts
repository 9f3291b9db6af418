/**
 * Q8, T1: log time never goes back, is bent by a tenth at most, and is within 10 s of true time while most clocks are
 * right.
 */
import type { PersistOp } from "../../../src/raft/types.ts";
import { decodeEntry } from "../../../src/replica/envelope.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { EPOCH } from "../world.ts";
import type { Invariant } from "./invariant.ts";

const ERROR_MAX_MS = 10_000;
/** Undisturbed for so long, members have told each other what their clocks show. */
const HEARD_MS = 3_000;
/** Log time is bent towards the wall clock by so much of what passes, at most; and is told in whole ms. */
const SLEW_MAX = 0.1;
const WHOLE_MS: Millis = 3;

interface Sealed {
  readonly term: number;
  readonly now: Millis;
  /** By the leader's own clock. */
  readonly at: Millis;
}

export class LogTime implements Invariant {
  readonly #sim: Simulation;
  /** What each leader sealed last. */
  readonly #sealed = new Map<SimNode, Sealed>();
  /** The term that each began to lead while most of those whom it could hear were not right. */
  readonly #begunInDoubt = new Map<SimNode, number>();
  #last = 0;
  #excused = false;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** Log time never goes back: one that was wrong in the cluster before is so in this one. */
  begins(machine: TaskMachine): void {
    this.#last = machine.logTime();
    this.#excused = Math.abs(this.#last - EPOCH - this.#sim.world.now) > ERROR_MAX_MS;
  }

  /** Its log time begins here; it is not set right by who is heard later. */
  leadership(node: SimNode, { role, term, active }: Leadership): void {
    if (role === "leader" && active && !this.#mostAreRight(node.id))
      this.#begunInDoubt.set(node, term);
  }

  /** As the leader seals it: when it commits, much later perhaps, it is old by right. */
  appending(node: SimNode, { entries }: PersistOp): void {
    const { id, leadership, suspendedMs } = node;
    for (const entry of entries) {
      const { kind, term, index } = entry;
      if (kind !== "command" || leadership?.role !== "leader" || term !== leadership.term) continue;
      const { now } = decodeEntry(entry);
      this.#slewed(node, term, now);
      const error = now - EPOCH - this.#sim.world.now;
      const isFar = error > ERROR_MAX_MS || error < -ERROR_MAX_MS - suspendedMs;
      // With a wrong clock that nobody could contradict it may be nearly so wrong, and what passes then drifts.
      const isStray =
        Math.abs(node.wallOffset) > ERROR_MAX_MS && 2 * Math.abs(error) > ERROR_MAX_MS;
      if (!isFar && !isStray) continue;
      // Log time never goes back: from here on it may be as wrong.
      if (!this.#mostAreRight(id) || this.#begunInDoubt.get(node) === term) this.#excused = true;
      if (isFar && !this.#excused)
        this.#sim.fail(
          "Q8",
          `${id} seals ${index} with a log time that is off by ${Math.round(error)} ms`,
        );
    }
  }

  /** One leader's log time goes on as its own clock does, but for the bend: it neither jumps nor stands still. */
  #slewed(node: SimNode, term: number, now: Millis): void {
    const at = node.clock.monotonic();
    const before = this.#sealed.get(node);
    this.#sealed.set(node, { term, now, at });
    if (before?.term !== term || at < before.at) return;
    const passed = at - before.at;
    const error = Math.abs(now - before.now - passed);
    if (error > SLEW_MAX * passed + WHOLE_MS)
      this.#sim.fail(
        "T1",
        `log time goes on by ${now - before.now} ms at ${node.id}, whose clock went on by ${passed}`,
      );
  }

  /**
   * Of those that this member can hear. Two survivors of three that disagree cannot know who is wrong, and
   * go on all the same: that is by design.
   */
  #mostAreRight(id: SimNode["id"]): boolean {
    const { nodes, network, options, world, disturbedAt } = this.#sim;
    // Clocks are told every second.
    if (world.now - disturbedAt < HEARD_MS || options.loss > 0.1) return false;
    // A folder that was lost is not let in: what its clock shows nobody hears.
    const heard = nodes.filter(
      ({ id: from, up, clock, transport }) =>
        up && !clock.still && !network.isCut(from, id) && (from === id || transport?.reaches(id)),
    );
    const right = heard.filter(({ wallOffset }) => Math.abs(wallOffset) < 1_000);
    return 2 * right.length > heard.length;
  }

  logged({ now, index }: CommittedEntry): void {
    if (now === 0) return;
    if (now < this.#last)
      this.#sim.fail("T1", `log time goes back by ${this.#last - now} ms at ${index}`);
    this.#last = now;
  }
}
