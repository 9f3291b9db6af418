/** Whether this member may have a say in elections just now, and stand in one. */
import type { Raft } from "../raft/raft.ts";
import type { Admission } from "./admission.ts";
import type { ClockWatch } from "./clock-watch.ts";
import type { Consistency } from "./consistency.ts";
import type { Core } from "./core.ts";

export class Eligibility {
  readonly #core: Core;
  readonly #admission: Admission;
  readonly #clockWatch: ClockWatch;
  readonly #consistency: Consistency;

  constructor(core: Core, admission: Admission, clockWatch: ClockWatch, consistency: Consistency) {
    this.#core = core;
    this.#admission = admission;
    this.#clockWatch = clockWatch;
    this.#consistency = consistency;
  }

  /** Not with a clock that is the odd one out (T1), nor with a state that is (T9). */
  get mayLead(): boolean {
    return this.#clockWatch.skewed() === null && this.#consistency.condemned === null;
  }

  /** Removed, or not caught up with the change that added this folder: it has no say in elections. */
  get isOutside(): boolean {
    const raft = this.#core.raft;
    if (raft === null) return true;
    return this.#admission.retired !== null || this.#admission.isStranger(raft.configuration);
  }

  /** A member whose wall clock is the odd one out does not campaign (T1): its election timer stands still. */
  mayTick(raft: Raft): boolean {
    if (this.isOutside) return false;
    return raft.role === "leader" || this.mayLead;
  }
}
