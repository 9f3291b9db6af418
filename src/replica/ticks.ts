/** This member's clock: ticks for the core, and all that looks at the time regularly. */
import type { Admission } from "./admission.ts";
import type { ApplyWaiters } from "./apply-waiters.ts";
import type { Beats } from "./beats.ts";
import type { Calls } from "./calls.ts";
import type { ConsensusError } from "./consensus.ts";
import type { Consistency } from "./consistency.ts";
import { type Core, TICK_MS } from "./core.ts";
import type { DiskRoom } from "./disk-room.ts";
import type { Eligibility } from "./eligibility.ts";
import type { Membership } from "./membership.ts";
import type { Clock, Millis, Timer } from "./ports.ts";
import type { QuorumWatch } from "./quorum-watch.ts";
import type { Reads } from "./reads.ts";
import type { Sightings } from "./sightings.ts";
import type { Snapshots } from "./snapshots.ts";
import type { Standing } from "./standing.ts";
import type { Writes } from "./writes.ts";

/** A tick so late was not late by itself: this member did not run, and could hear nobody. */
const AWAY_MS: Millis = 100;

/** What is swept. */
export interface TicksPort {
  readonly clock: Clock;
  readonly core: Core;
  readonly eligibility: Eligibility;
  readonly quorum: QuorumWatch;
  readonly room: DiskRoom;
  readonly standing: Standing;
  readonly writes: Writes;
  readonly reads: Reads;
  readonly calls: Calls;
  readonly waiters: ApplyWaiters;
  readonly consistency: Consistency;
  readonly snapshots: Snapshots;
  readonly membership: Membership;
  readonly admission: Admission;
  readonly sightings: Sightings;
  readonly beats: Beats;
}

export class Ticks {
  readonly #port: TicksPort;
  #nextAt: Millis;
  #timer: Timer | null = null;

  constructor(port: TicksPort) {
    this.#port = port;
    this.#nextAt = port.clock.monotonic() + TICK_MS;
  }

  start(): void {
    this.#timer = this.#port.clock.after(TICK_MS, () => this.#tick());
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #tick(): void {
    const { clock, core, eligibility, quorum } = this.#port;
    if (core.isStopped) return;
    const now = clock.monotonic();
    const awayMs = now - this.#nextAt;
    if (awayMs > AWAY_MS) quorum.away(now, awayMs);
    core.guard(() => {
      const raft = core.raft;
      // One tick a turn, however late it is: after a stall the messages that wait come first.
      if (raft !== null && !core.isHalted) {
        if (eligibility.standsDown(raft)) raft.standDown();
        const missed = Math.max(0, Math.floor(awayMs / TICK_MS));
        if (!eligibility.isOutside) raft.tick(eligibility.mayCampaign(raft), missed);
      }
      this.#sweep(now);
      core.pump();
    });
    this.#nextAt = Math.max(this.#nextAt + TICK_MS, now + 1);
    this.#timer = clock.after(Math.max(1, this.#nextAt - clock.monotonic()), () => this.#tick());
  }

  #sweep(now: Millis): void {
    const { quorum, room, standing, writes, reads, calls, waiters } = this.#port;
    quorum.look(now);
    const lost = quorum.isLost ? (): ConsensusError => quorum.noQuorum() : null;
    const late = (): ConsensusError => quorum.late();
    writes.sweep(now, lost, late);
    if (lost !== null) reads.failAll(lost);
    reads.sweep(now, late);
    calls.sweep(now, standing.leadership.leader);
    const tooLate = (): ConsensusError => room.refusedRead() ?? late();
    if (room.mayNotWait(now)) waiters.failAll(tooLate);
    else waiters.sweep(now, tooLate);
    this.#port.consistency.tick(now);
    this.#port.snapshots.sweep(now);
    this.#port.membership.look(now);
    this.#port.sightings.keep(now);
    this.#lookAtSelf();
    this.#port.beats.speak(now);
  }

  #lookAtSelf(): void {
    const raft = this.#port.core.raft;
    if (raft === null || raft.configurationIndex > raft.commit) return;
    this.#port.admission.settled(raft.configuration, raft.configurationIndex);
  }
}
