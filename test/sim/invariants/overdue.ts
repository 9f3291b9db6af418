/**
 * T6, Q8, from the other side: what a leader has to do by itself is done in time. An attempt that ran too long is ended,
 * and a task whose time has come is ready, within some four seconds of log time, under a leader that logs entries all the
 * while.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Between two looks. */
const EVERY_MS: Millis = 250;
/** A command may have to be proposed again, a second later. */
const LATE_MS: Millis = 2_000;
/**
 * Seen to be late in two entries so far apart: a leader that did not run makes an entry of what waited for it, and only
 * then looks at its clock.
 */
const STILL_MS: Millis = 1_500;

/** A leader that refuses commands, its own too, or has a wrong state, has so long after that is over. */
const EXCUSED_MS: Millis = 3_000;

interface Attempt {
  readonly id: string;
  readonly timeoutAt: Millis;
}

export class Overdue implements Invariant {
  readonly #sim: Simulation;
  /** By fence. */
  readonly #attempts = new Map<number, Attempt>();
  #term = 0;
  /** Log time since which its leader has no excuse: that of the first entry of its term, as a rule. */
  #since: Millis = 0;
  #lookedAt: Millis = 0;
  /** Virtual time of the last excuse that anybody had. */
  #excusedAt: Millis = -EXCUSED_MS;
  /** By what is late: when that was seen first. */
  #late = new Map<string, Millis>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  often(): void {
    const { nodes, world } = this.#sim;
    if (nodes.some(({ diskFull, readOnly, wasRotten }) => diskFull || readOnly || wasRotten))
      this.#excusedAt = world.now;
  }

  logged(
    { now, term }: CommittedEntry,
    _answers: readonly Answer[],
    signals: readonly Signal[],
    node: SimNode,
  ): void {
    if (now === 0) return;
    for (const signal of signals)
      if (signal.type === "claimed") {
        const { id, lease, started_at, timeout_ms } = signal.task;
        if (timeout_ms !== null)
          this.#attempts.set(lease.fence, { id, timeoutAt: (started_at ?? now) + timeout_ms });
      } else if (signal.type === "lease-end") this.#attempts.delete(signal.fence);
    const isExcused = this.#sim.world.now - this.#excusedAt < EXCUSED_MS;
    if (term !== this.#term || isExcused) {
      this.#term = term;
      this.#since = now;
      this.#lookedAt = now;
      this.#late.clear();
    }
    if (now - this.#lookedAt < EVERY_MS) return;
    this.#lookedAt = now;
    const late = new Map<string, Millis>();
    const look = (what: string, dueAt: Millis): void => {
      if (now - Math.max(dueAt, this.#since) < LATE_MS) return;
      const first = this.#late.get(what) ?? now;
      late.set(what, first);
      if (now - first > STILL_MS)
        this.#sim.fail("overdue (T6, Q8)", `${what}, due at ${dueAt}, and it is ${now}`);
    };
    for (const [fence, { id, timeoutAt }] of this.#attempts)
      look(`${id} runs under fence ${fence} for too long`, timeoutAt);
    const { leadership, machine } = node;
    // Asked of a leader alone, which looks at this after each entry itself.
    const dueAt = leadership?.active === true ? (machine?.nextDueAt() ?? null) : null;
    if (dueAt !== null) look("a task waits though its time has come", dueAt);
    this.#late = late;
  }
}
