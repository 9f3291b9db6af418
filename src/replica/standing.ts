/** Who leads, by this member's newest word of it, and whether it does: told to all who ask to be. */
import type { NodeId, Role, Term } from "../raft/types.ts";
import { asTerm } from "../raft/types.ts";
import type { Leadership } from "./consensus.ts";
import { LogClock } from "./log-clock.ts";
import type { Clock, Log, Millis, StateMachine } from "./ports.ts";
import type { ElectionReason } from "./replica-options.ts";

/** What it needs of the replica around it. */
export interface StandingPort {
  readonly clock: Clock;
  readonly log: Log;
  readonly machine: StateMachine;
  /** This member's wall clock is the odd one out. */
  skewed(): boolean;
  /** What the middle one of the members' wall clocks shows, epoch ms. */
  medianWall(): Millis;
  /** It leads no more. */
  steppedDown(): void;
  /** There is another leader to talk to. */
  toLeader(leader: NodeId): void;
}

export class Standing {
  readonly #port: StandingPort;
  readonly #listeners: ((leadership: Leadership) => void)[] = [];
  readonly #elections: Record<ElectionReason, number> = {
    timeout: 0,
    "leader-lost": 0,
    transfer: 0,
  };
  /** Since the start. */
  readonly counters = { elections: 0, leaderChanges: 0 };
  /** Of the next election, or of the one under way. */
  #reason: ElectionReason = "timeout";
  #leadership: Leadership = { role: "follower", term: asTerm(0), leader: null, active: false };
  #logClock: LogClock | null = null;

  constructor(port: StandingPort) {
    this.#port = port;
  }

  get leadership(): Leadership {
    return this.#leadership;
  }

  /** Elections that this member stood for, by why they began. */
  get elections(): Readonly<Record<ElectionReason, number>> {
    return { ...this.#elections };
  }

  /** The next election, if one comes now, has another reason than silence. */
  expect(reason: ElectionReason): void {
    this.#reason = reason;
  }

  /** Called at every change, and once at registration. */
  onLeadership(listener: (leadership: Leadership) => void): void {
    this.#listeners.push(listener);
    listener(this.#leadership);
  }

  /** Leader: the log time it would put into an entry now. Others: the newest applied log time. */
  logNow(): Millis {
    const logClock = this.#logClock;
    if (logClock === null) return this.#port.machine.logTime();
    return logClock.now(!this.#port.skewed());
  }

  /** The core's word. */
  changed({ role, term, leader }: { role: Role; term: Term; leader: NodeId | null }): void {
    const before = this.#leadership;
    // One that needs nobody else goes through all of it at once.
    const stands = role === "candidate" || (role === "leader" && before.role !== "candidate");
    if (stands && (before.role !== "candidate" || term !== before.term)) {
      this.counters.elections += 1;
      this.#elections[this.#reason] += 1;
    }
    if (role === "follower" || role === "leader") this.#reason = "timeout";
    if (leader !== null && leader !== before.leader) this.counters.leaderChanges += 1;
    this.#leadership = { role, term, leader, active: false };
    const steppedDown = before.role === "leader" && (role !== "leader" || term !== before.term);
    if (steppedDown) {
      this.#logClock = null;
      this.#port.steppedDown();
    }
    if (leader !== before.leader || role !== before.role) {
      this.#port.log.info(
        role === "leader" ? "leading" : leader === null ? "no leader" : `following ${leader}`,
        {
          term,
          role,
        },
      );
    }
    if (leader !== null && leader !== before.leader) this.#port.toLeader(leader);
    this.#checkActive();
    this.#tell();
  }

  /** Something was applied: a leader may be active now. */
  applied(): void {
    if (this.#checkActive()) this.#tell();
  }

  /** A leader is active once it applied the entry that opens its term: all that was acknowledged is in its state. */
  #checkActive(): boolean {
    const { role, term, active } = this.#leadership;
    const { machine, clock } = this.#port;
    if (active || role !== "leader" || machine.applied().term !== term) return false;
    // It may have won before it found out that its clock is the odd one: log time never goes back.
    const wall = this.#port.skewed() ? this.#port.medianWall() : clock.wall();
    this.#logClock = new LogClock(clock, wall, machine.logTime());
    this.#leadership = { ...this.#leadership, active: true };
    return true;
  }

  #tell(): void {
    for (const listener of this.#listeners) listener(this.#leadership);
  }
}
