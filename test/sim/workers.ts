/**
 * Workers outside of the members: they claim by long poll, give up in the middle of it, claim again under
 * the same request, send heartbeats or forget to, and end their leases in time, late, twice, under stale
 * fences, or never.
 */
import type { FlotillaQueue } from "../../src/queue/queue.ts";
import type { Claim, ClaimedTask, LeaseEnd, LeaseRef } from "../../src/queue/types.ts";
import { claimAgain } from "./claim-again.ts";
import { OUTSIDE_NAME } from "./clients.ts";
import { errorOf } from "./executor.ts";
import { KeyedCalls } from "./keyed.ts";
import { streamOf } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import { Prng } from "./world.ts";

const END_TRIES = 6;
/** As whom they come. */
export const OUTSIDE = "outside";

export class OutsideWorker {
  readonly #sim: Simulation;
  readonly #prng: Prng;
  readonly #id: string;
  /** Names OUTSIDE_NAME explicitly, or takes anything. */
  readonly #explicit: boolean;
  readonly #again: Prng;
  readonly #keyed: KeyedCalls;
  /** Decides when others name its leases. */
  readonly #strangers: Prng;
  #requests = 0;
  readonly #old: LeaseRef[] = [];

  constructor(sim: Simulation, number: number, explicit: boolean) {
    this.#sim = sim;
    this.#prng = new Prng(sim.world.prng.uint32());
    this.#id = `${sim.era}w${number}`;
    this.#explicit = explicit;
    this.#again = streamOf(sim.options.seed, `claims of ${this.#id}`);
    this.#keyed = new KeyedCalls(sim, OUTSIDE, this.#id);
    this.#strangers = streamOf(sim.options.seed, `strangers at ${this.#id}`);
  }

  async run(): Promise<void> {
    while (!this.#sim.over) {
      await this.#sim.sleep(this.#prng.between(1, 100));
      const tasks = await this.#claim();
      await this.#endUnderOldFences(tasks);
      for (const task of tasks) await this.#work(task);
      if (this.#old.length > 0 && this.#sim.mood.wild() && this.#prng.chance(0.1))
        await this.#end(this.#prng.pick(this.#old), { kind: "complete", result: "2" });
    }
  }

  /** It holds a task again that it held before, and what it did then comes late: under a fence that is no more. */
  async #endUnderOldFences(tasks: readonly ClaimedTask[]): Promise<void> {
    if (!this.#sim.mood.wild()) return;
    for (const { id, lease } of tasks) {
      const old = this.#old.find(({ task_id, fence }) => task_id === id && fence !== lease.fence);
      if (old !== undefined && this.#prng.chance(0.5))
        await this.#end(old, { kind: "complete", result: "3" });
    }
  }

  async #claim(): Promise<readonly ClaimedTask[]> {
    const p = this.#prng;
    this.#requests += 1;
    const claim: Claim = {
      worker_id: this.#id,
      request_id: `r${this.#requests}`,
      principal: OUTSIDE,
      queues: p.chance(0.2) ? ["bulk"] : null,
      names: this.#explicit ? [OUTSIDE_NAME] : null,
      star: false,
      max: p.between(1, 3),
      local: null,
    };
    if (this.#sim.options.families.has("claim-again") && this.#again.chance(0.7))
      return claimAgain(this.#sim, this.#again, claim);
    if (this.#keyed.next) return this.#claimUnderKey(claim);
    const waitMs = p.between(100, 4_000);
    for (let attempt = 0; attempt < 3; attempt++) {
      const gone = new AbortController();
      if (this.#sim.mood.wild() && p.chance(0.15))
        void this.#sim.sleep(p.between(1, 500)).then(() => gone.abort());
      const answer = await this.#call((queue) => queue.claim(claim, waitMs, gone.signal), waitMs);
      // What an aborted claim got is handed back by the member; the worker never saw it.
      if (gone.signal.aborted) return [];
      if (answer === null) continue;
      this.#sim.history.claimed(claim, answer.tasks);
      return answer.tasks;
    }
    return [];
  }

  /** Everybody who repeats it is told of the tasks as they were claimed, though their leases may be over by then. */
  async #claimUnderKey(claim: Claim): Promise<readonly ClaimedTask[]> {
    const idem = this.#keyed.scope("claim", this.#id);
    const waitMs = this.#again.pick([0, 50, 800]);
    const answer = await this.#keyed.call(
      idem,
      async (queue) => {
        const { tasks } = await queue.claim({ ...claim, idem }, waitMs, null);
        // A claim that found nothing is not kept.
        return tasks;
      },
      (tasks) => (tasks.length === 0 ? undefined : tasks.map(({ id, lease }) => [id, lease.fence])),
    );
    if (answer !== null) this.#sim.history.claimed(claim, answer);
    return answer ?? [];
  }

  async #work({ id, lease }: ClaimedTask): Promise<void> {
    const p = this.#prng;
    const { leaseMs } = this.#sim.options;
    const wild = this.#sim.mood.wild();
    const ref: LeaseRef = { task_id: id, attempt: lease.attempt, fence: lease.fence };
    this.#old.push(ref);
    if (this.#old.length > 20) this.#old.shift();
    if (wild) await this.#meddle(ref);
    if (wild && p.chance(0.08)) return;
    if (wild && p.chance(0.08)) {
      // Gives the task back in the very moment in which the leader gives the lease up.
      await this.#sim.sleep(leaseMs * 1.2 + p.between(-60, 60));
      await this.#end(ref, { kind: "release" });
      return;
    }
    const periods = wild ? p.pick([0, 0, 0.5, 1, 3]) : 0;
    const faithful = p.chance(0.8);
    for (let third = 0; third < 3 * periods; third++) {
      await this.#sim.sleep(leaseMs / 3);
      if (!faithful) continue;
      const verdict = await this.#heartbeat(ref);
      if (verdict === "lost" && p.chance(0.8)) return;
      if (verdict === "cancel") {
        await this.#end(
          ref,
          p.chance(0.8) ? { kind: "release" } : { kind: "complete", result: null },
        );
        return;
      }
    }
    if (periods > 1 && !faithful) this.#sim.faults.count("end after expiry");
    await this.#end(ref, this.#drawEnd(wild));
    if (wild && p.chance(0.1)) await this.#end(ref, { kind: "complete", result: "1" });
    // What is over is nobody else's either.
    const { families } = this.#sim.options;
    if (wild && families.has("stranger") && this.#strangers.chance(0.3))
      await this.#steal(ref, this.#strangers.chance(0.5));
  }

  /** Somebody else names this lease as it is: it is neither kept nor ended by that. */
  async #meddle(ref: LeaseRef): Promise<void> {
    const { families } = this.#sim.options;
    if (!families.has("stranger") || !this.#strangers.chance(0.2)) return;
    this.#sim.faults.count("stranger");
    const another = this.#strangers.chance(0.5);
    const worker = another ? `${this.#id}x` : this.#id;
    const principal = another ? OUTSIDE : "stranger";
    const verdict = await this.#call((queue) => queue.heartbeat(worker, principal, [ref]));
    const [told] = verdict?.verdicts ?? [];
    if (told !== undefined && told !== "lost")
      this.#sim.fail("Q4", `${worker} of ${principal} is told "${told}" of ${ref.task_id}`);
    await this.#steal(ref, another);
  }

  /** `another`: another worker of the same principal. */
  async #steal(ref: LeaseRef, another: boolean): Promise<void> {
    const worker = another ? `${this.#id}x` : this.#id;
    const principal = another ? OUTSIDE : "stranger";
    const end: LeaseEnd = { kind: "complete", result: '"stolen"' };
    const answers = await this.#call((queue) =>
      queue.end(worker, principal, [{ ...ref, end }], null),
    );
    const [said] = answers ?? [];
    if (said === "ok" || said === "cancelled")
      this.#sim.fail(
        "Q4",
        `${worker} of ${principal} ended ${ref.task_id}, which it does not hold`,
      );
  }

  #drawEnd(wild: boolean): LeaseEnd {
    const p = this.#prng;
    if (!wild || p.chance(0.6)) return { kind: "complete", result: '"outside"' };
    return p.pick<LeaseEnd>([
      { kind: "release" },
      { kind: "snooze", delay_ms: p.between(0, 1_000) },
      { kind: "fail", error: errorOf("outside"), retry_after_ms: null, crashed: false },
      { kind: "fail", error: errorOf("outside", false), retry_after_ms: null, crashed: false },
      { kind: "fail", error: errorOf("died"), retry_after_ms: 10, crashed: true },
    ]);
  }

  async #heartbeat(ref: LeaseRef) {
    const since = this.#sim.history.begin();
    const begunAt = this.#sim.history.now;
    const answer = await this.#call((queue) =>
      queue.heartbeat(this.#id, OUTSIDE, [
        this.#prng.chance(0.2) ? { ...ref, progress: { percent: 10, message: "on" } } : ref,
      ]),
    );
    if (answer === null) return null;
    this.#sim.history.heartbeat(this.#id, [ref], answer.verdicts, since, begunAt);
    return answer.verdicts[0] ?? null;
  }

  async #end(ref: LeaseRef, end: LeaseEnd): Promise<void> {
    if (end.kind === "release") this.#sim.history.releases(ref);
    if (this.#keyed.next) {
      const scope = this.#keyed.scope("end", this.#id);
      const said = await this.#keyed.call(
        scope,
        async (queue) => (await queue.keyed.end(scope, this.#id, [{ ...ref, end }])).value[0],
        (answer) => (answer === "ok" || answer === "cancelled" ? answer : undefined),
      );
      if (said === "ok" && end.kind === "complete") this.#sim.history.completed(ref);
      if (said !== null) return;
    }
    for (let attempt = 0; attempt < END_TRIES; attempt++) {
      const answer = await this.#call((queue) =>
        queue.end(this.#id, OUTSIDE, [{ ...ref, end }], null),
      );
      if (answer === null) {
        await this.#sim.sleep(this.#prng.between(10, 400));
        continue;
      }
      if (answer[0] === "ok" && end.kind === "complete") this.#sim.history.completed(ref);
      return;
    }
  }

  async #call<T>(run: (queue: FlotillaQueue) => Promise<T>, extraMs = 0): Promise<T | null> {
    try {
      return await this.#sim.call(this.#prng.pick(this.#sim.addressable()), run, extraMs);
    } catch {
      return null;
    }
  }
}
