/**
 * T6, Q8, from the other side: what a leader has to do by itself is done in time. An attempt that ran too long is ended,
 * and a task whose time has come is ready, before long under a leader that can do it.
 *
 * Log time does not tell whether it could: seconds of it lie between two entries that are applied one right behind the
 * other, when a disk hung after the first was made. What the leader had proposed meanwhile waits behind it; and an attempt
 * that others know of already is none to a leader that has not applied its claim. So this counts virtual time, since when
 * the leader runs, takes writes, and applies promptly what it made.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { LogIndex, Term } from "../../../src/raft/types.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** From being made to being applied by who made it; one that takes longer at times owes nothing meanwhile. */
const PROMPT_MS: Millis = 500;
/**
 * A command that did not get through is proposed again half a second later, one about leases a second later, on a clock
 * that may lose a tenth; and each takes an entry before it and one of its own.
 */
const OWED_MS: Millis = 3_000;
/** A leader that refuses commands, its own too, or has a wrong state, has so long after that is over. */
const EXCUSED_MS: Millis = 3_000;
/** Log time gains on the clock of a leader's timers by so much at most (log-clock.ts). */
const SLEW_MAX = 0.1;

interface Attempt {
  readonly id: string;
  readonly timeoutAt: Millis;
  readonly timeoutMs: Millis;
  /** Of the entry by which it began. */
  readonly index: LogIndex;
}

export class Overdue implements Invariant {
  readonly #sim: Simulation;
  /** By fence. */
  readonly #attempts = new Map<number, Attempt>();
  #leader: SimNode | null = null;
  #term: Term | null = null;
  /** Of the newest entry that the leader has applied: its own clock shows no less. */
  #logTime: Millis = 0;
  /** What it made and has not applied, each with a time at which that was not made yet. */
  #underWay: { readonly index: LogIndex; readonly after: Millis }[] = [];
  #lastIndex = 0;
  #lookedAt: Millis = 0;
  /** Virtual time of the last excuse that anybody had. */
  #excusedAt: Millis = -EXCUSED_MS;
  /** By what is late: since when the leader could have done it. */
  #late = new Map<string, Millis>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(
    { index, now }: CommittedEntry,
    _answers: readonly Answer[],
    signals: readonly Signal[],
  ): void {
    for (const signal of signals)
      if (signal.type === "claimed") {
        const { id, lease, started_at, timeout_ms } = signal.task;
        if (timeout_ms === null) continue;
        const timeoutAt = (started_at ?? now) + timeout_ms;
        this.#attempts.set(lease.fence, { id, timeoutAt, timeoutMs: timeout_ms, index });
      } else if (signal.type === "lease-end") this.#attempts.delete(signal.fence);
  }

  applied(node: SimNode, { now }: CommittedEntry): void {
    if (node === this.#leader && now > 0) this.#logTime = now;
  }

  /** It may propose that again only later. */
  refused(node: SimNode, _asked: Uint8Array, reason: string): void {
    if (node === this.#leader && (reason === "overloaded" || reason === "low-disk"))
      this.#excusedAt = this.#sim.world.now;
  }

  often(): void {
    const { nodes, world } = this.#sim;
    if (nodes.some(({ diskFull, readOnly, wasRotten }) => diskFull || readOnly || wasRotten))
      this.#excusedAt = world.now;
    this.#leads();
    const leader = this.#leader;
    if (leader === null) return;
    const isAble = this.#isAble(leader);
    this.#lookedAt = world.now;
    if (isAble) this.#look(leader);
    else this.#late.clear();
  }

  /** Who leads, by the latest term in which anybody does. */
  #leads(): void {
    let leader: SimNode | null = null;
    let term: Term | null = null;
    for (const node of this.#sim.nodes) {
      const { leadership } = node;
      if (!node.answers || leadership === null) continue;
      if (leadership.role !== "leader" || !leadership.active) continue;
      if (term !== null && leadership.term <= term) continue;
      leader = node;
      term = leadership.term;
    }
    if (leader === this.#leader && term === this.#term) return;
    this.#leader = leader;
    this.#term = term;
    this.#logTime = 0;
    this.#underWay = [];
    this.#lastIndex = leader?.applied ?? 0;
    this.#late.clear();
  }

  /** It runs, holds its writes back for no successor, and what it made was applied by it promptly. */
  #isAble(leader: SimNode): boolean {
    const { world } = this.#sim;
    const core = leader.replica?.core ?? null;
    if (core === null) return false;
    const { lastIndex, transferTarget } = core;
    if (lastIndex > this.#lastIndex)
      this.#underWay.push({ index: lastIndex, after: this.#lookedAt });
    this.#lastIndex = lastIndex;
    this.#underWay = this.#underWay.filter(({ index }) => index > leader.applied);
    const oldest = this.#underWay[0];
    if (oldest !== undefined && world.now - oldest.after > PROMPT_MS) return false;
    if (leader.clock.still || transferTarget !== null) return false;
    return world.now - this.#excusedAt >= EXCUSED_MS;
  }

  #look(leader: SimNode): void {
    const { now } = this.#sim.world;
    const logTime = this.#logTime;
    // With nothing under way, what is owed is not either: it was not proposed, or did not do it.
    const isIdle =
      leader.replica?.waiting.proposals === 0 && leader.applied === leader.replica.core?.lastIndex;
    const late = new Map<string, Millis>();
    const look = (what: string, dueAt: Millis, graceMs: Millis): void => {
      if (logTime <= dueAt + graceMs) return;
      const key = `${what}, due at ${dueAt}`;
      const since = this.#late.get(key) ?? now;
      late.set(key, since);
      if (isIdle && now - since > OWED_MS)
        this.#sim.fail("overdue (T6, Q8)", `${key}, and it is ${logTime}`);
    };
    for (const [fence, { id, timeoutAt, timeoutMs, index }] of this.#attempts)
      // Its timer was set for all of that time; and it knows of no attempt that it has not applied.
      if (index <= leader.applied)
        look(`${id} runs under fence ${fence} for too long`, timeoutAt, timeoutMs * SLEW_MAX);
    // It looks at this after each entry itself.
    const dueAt = leader.machine?.nextDueAt() ?? null;
    if (dueAt !== null) look("a task waits though its time has come", dueAt, 0);
    this.#late = late;
  }
}
