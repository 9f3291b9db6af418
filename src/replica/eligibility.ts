/** Whether this member may have a say in elections just now, and stand in one. */
import type { Raft } from "../raft/raft.ts";
import type { Admission } from "./admission.ts";
import type { ClockWatch } from "./clock-watch.ts";
import type { Consistency } from "./consistency.ts";
import type { Core } from "./core.ts";

/** Election timeouts that a member whose state is wrong leaves to the others. Two are the longest that one waits. */
const PATIENCE_TIMEOUTS = 4;

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

  /**
   * Whether it may stand without waiting for its election timer: not with a clock that is the odd one out (T1), nor with a
   * state that is (T9), nor without a say. A folder that came under the id of one that began the cluster alone is the
   * only voter by the entry that it begins with: it would elect itself.
   */
  get mayLead(): boolean {
    return (
      !this.isOutside && this.#clockWatch.skewed() === null && this.#consistency.condemned === null
    );
  }

  /**
   * Removed, or not caught up with the change that added this folder: it has no say in elections. A log that is being
   * repaired may have lost that change, and may be needed: who is elected has all that it held, and counts this folder's
   * vote only as a member by its own log.
   */
  get isOutside(): boolean {
    const raft = this.#core.raft;
    if (raft === null) return true;
    if (this.#admission.retired !== null) return true;
    return raft.repairingTo === null && this.#admission.isStranger(raft.configuration);
  }

  /**
   * Whether it gives up what it stands for: who was removed leads no more, though nobody of a later term has told its
   * core; and a candidate whose wall clock turns out to be the odd one waits for its votes no longer (T1). One that leads
   * already goes on: its log time leaves that clock alone.
   */
  standsDown(raft: Raft): boolean {
    return this.isOutside || (raft.role !== "leader" && this.#clockWatch.skewed() !== null);
  }

  /**
   * Whether its election timer may end in a campaign: not with a wall clock that is the odd one out (T1). With a wrong
   * state (T9) only when nobody else led for long: its log is right, and may be the one that the others need. It hands
   * over then.
   */
  mayCampaign(raft: Raft): boolean {
    if (this.isOutside || this.#clockWatch.skewed() !== null) return false;
    const patience = PATIENCE_TIMEOUTS * this.#core.electionTicks;
    return this.#consistency.condemned === null || raft.electionElapsedTicks >= patience;
  }
}
