/** Q8, T1: log time never goes back, and is within 10 s of true time while most clocks are right. */
import type { PersistOp } from "../../../src/raft/types.ts";
import { decodeEntry } from "../../../src/replica/envelope.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { EPOCH } from "../world.ts";
import type { Invariant } from "./invariant.ts";

const ERROR_MAX_MS = 10_000;
/** Undisturbed for so long, members have told each other what their clocks show. */
const HEARD_MS = 3_000;

export class LogTime implements Invariant {
  readonly #sim: Simulation;
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

  /** As the leader seals it: when it commits, much later perhaps, it is old by right. */
  appending({ id, leadership, suspendedMs }: SimNode, { entries }: PersistOp): void {
    for (const entry of entries) {
      const { kind, term, index } = entry;
      if (kind !== "command" || leadership?.role !== "leader" || term !== leadership.term) continue;
      const { now } = decodeEntry(entry);
      const error = now - EPOCH - this.#sim.world.now;
      if (error <= ERROR_MAX_MS && error >= -ERROR_MAX_MS - suspendedMs) continue;
      // Log time never goes back: from here on it may be as wrong.
      if (!this.#mostAreRight(id)) this.#excused = true;
      if (!this.#excused)
        this.#sim.fail(
          "Q8",
          `${id} seals ${index} with a log time that is off by ${Math.round(error)} ms`,
        );
    }
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
