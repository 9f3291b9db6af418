/**
 * Clients: they submit, read, list, cancel, retry and clear at any member, try again at another one what
 * failed, use idempotency keys twice, and tell the history what they were answered.
 */
import { QueueError, type QueueErrorCode, type Submitted } from "../../src/queue/service.ts";
import type { FlotillaQueue } from "../../src/queue/queue.ts";
import type { IdempotencyScope, NewTask, RetryPolicy } from "../../src/queue/types.ts";
import { DEFAULT_RETRY } from "../../src/queue/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import { another } from "./claim-again.ts";
import { commonKey, KeyedCalls } from "./keyed.ts";
import { Misuse, type SubmitCall } from "./misuse.ts";
import { POOL_NAMES, type SimNode } from "./node.ts";
import { streamOf } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import { EPOCH, Prng } from "./world.ts";

/** Handled by outside workers alone: they name it, so no star takes it. */
export const OUTSIDE_NAME = "outside";
const QUEUES = ["default", "bulk"];
const KNOWN_MAX = 200;
const TRIES_MAX = 4;
/** Between two looks for a leader that is none any more: such moments are short. */
const WATCH_MS: Millis = 10;
const SHORT_RETRY: RetryPolicy = { ...DEFAULT_RETRY, initial_ms: 50, max_ms: 2_000 };

/** Whoever is refused for one of these may count on it. */
const NOTHING_HAPPENED: ReadonlySet<QueueErrorCode> = new Set([
  "no-leader",
  "no-quorum",
  "overloaded",
  "low-disk",
  "removed",
  "stopping",
]);

export class Client {
  readonly #sim: Simulation;
  readonly #prng: Prng;
  readonly #name: string;
  /** Ids that this client may ask about. */
  readonly #known: string[] = [];
  readonly #earlier: SubmitCall[] = [];
  readonly #keyed: KeyedCalls;
  /** Decides which answers get lost on their way. */
  readonly #loss: Prng;
  readonly #misuse: Misuse;
  #keys = 0;

  constructor(sim: Simulation, number: number) {
    this.#sim = sim;
    this.#prng = new Prng(sim.world.prng.uint32());
    this.#name = `${sim.era}c${number}`;
    this.#keyed = new KeyedCalls(sim, this.#name, this.#name);
    this.#loss = streamOf(sim.options.seed, `answers to ${this.#name}`);
    this.#misuse = new Misuse(sim, this.#name, (call, node) =>
      this.#call((queue) => this.#send(queue, call), node),
    );
  }

  /** Calls one after the other, until the phase with faults is over. */
  async run(): Promise<void> {
    const { thinkMs } = this.#sim.options;
    while (this.#sim.mood.wild()) {
      const idle = this.#prng.chance(0.01);
      if (idle) this.#sim.faults.count("long idle time");
      await this.#sim.sleep(idle ? 4_000 : this.#prng.float() * 2 * thinkMs);
      await this.#act();
    }
  }

  /**
   * Looks for the moments that matter to reads: a leader that another has replaced without its knowing, and
   * one that has not committed in its term yet. Writes at the one, reads at the other.
   */
  async watch(): Promise<void> {
    const { nodes } = this.#sim;
    while (this.#sim.mood.wild()) {
      await this.#sim.sleep(WATCH_MS);
      const leaders = nodes.filter(({ up, leadership }) => up && leadership?.role === "leader");
      // As nearly always: this is looked at very often.
      if (leaders.length === 1 && leaders[0]?.leadership?.active === true) continue;
      const newest = Math.max(...leaders.map(({ leadership }) => leadership?.term ?? 0));
      const doubtful = leaders.filter(
        ({ leadership }) => leadership?.active === false || (leadership?.term ?? 0) < newest,
      );
      if (doubtful.length === 0) continue;
      const right = leaders.find(({ leadership }) => leadership?.term === newest);
      if (right !== undefined && this.#prng.chance(0.3)) this.#sim.writeAt(right);
      for (const node of doubtful) {
        void this.#get(node);
        if (this.#prng.chance(0.02)) this.#sim.writeAt(node);
      }
    }
  }

  async #act(): Promise<void> {
    const p = this.#prng;
    const roll = p.float();
    if (roll < 0.35) await this.#submit(this.#newSubmit());
    else if (roll < 0.4) await this.#repeat();
    else if (roll < 0.6) await this.#get();
    else if (roll < 0.68) await this.#cancel();
    else if (roll < 0.74) await this.#retry();
    else if (roll < 0.8) await this.#waitFinal();
    else if (roll < 0.87) await this.#list();
    else if (roll < 0.93) await this.#stats();
    else if (roll < 0.95) await this.#attempts();
    else if (roll < 0.954) await this.#burst();
    else if (roll < 0.96 && this.#sim.options.clears) await this.#clear();
  }

  /** One call at a member; null: it failed, or nobody knows. */
  async #call<T>(
    run: (queue: FlotillaQueue) => Promise<T>,
    node?: SimNode,
    refused?: (reason: QueueErrorCode) => void,
  ): Promise<T | null> {
    try {
      return await this.#sim.call(node ?? this.#prng.pick(this.#sim.addressable()), run);
    } catch (error) {
      if (error instanceof QueueError) refused?.(error.reason);
      this.#sim.history.counts.failed += 1;
      if (error instanceof QueueError && error.reason === "outcome-unknown")
        this.#sim.history.counts.unknown += 1;
      return null;
    }
  }

  #pick(): string | null {
    const recent = this.#known.slice(-40);
    return recent.length === 0 ? null : this.#prng.pick(recent);
  }

  #know(ids: readonly string[]): void {
    this.#known.push(...ids);
    if (this.#known.length > KNOWN_MAX) this.#known.splice(0, this.#known.length - KNOWN_MAX);
  }

  // ------------------------------------------------------------------ submits

  #newSubmit(): SubmitCall {
    const p = this.#prng;
    const count = p.chance(0.8) ? 1 : p.between(2, 12);
    const now = EPOCH + this.#sim.world.now;
    const mayRepeat = p.chance(0.5);
    const tasks = Array.from({ length: count }, (): NewTask => {
      const id = p.uuid(now);
      return {
        id,
        name: p.pick([...POOL_NAMES, "stray", OUTSIDE_NAME]),
        queue: p.pick(QUEUES),
        priority: p.pick([5, 5, 5, 0, 9]),
        payload: p.chance(0.8) ? JSON.stringify({ n: p.between(0, 9) }) : null,
        max_retries: p.pick([0, 1, 3]),
        run_at: p.chance(0.15) ? Math.floor(now + p.between(-1_000, 4_000)) : null,
        timeout_ms: p.pick([null, 60_000, 60_000, 800]),
        retry: p.chance(0.9) ? SHORT_RETRY : { ...SHORT_RETRY, kind: "none" },
        body_hash: mayRepeat ? p.hex(8) : null,
      };
    });
    // What can be told from a repeat only by its key must bear one, or must not be tried again.
    const idempotency = p.chance(0.4) ? this.#key() : null;
    return { tasks, idempotency };
  }

  #key(): IdempotencyScope {
    const { families } = this.#sim.options;
    this.#keys += 1;
    return {
      principal: this.#name,
      route: "submit",
      key: families.has("stranger") ? commonKey(this.#keys) : `${this.#name}-${this.#keys}`,
      hash: this.#prng.hex(4),
    };
  }

  async #submit(call: SubmitCall, node?: SimNode): Promise<void> {
    const { history } = this.#sim;
    for (const { id } of call.tasks) history.asked.add(id);
    this.#know(call.tasks.map(({ id }) => id));
    const repeatable =
      call.idempotency !== null || call.tasks.every(({ body_hash }) => body_hash !== null);
    if (repeatable) {
      this.#earlier.push(call);
      if (this.#earlier.length > 20) this.#earlier.shift();
    }
    const since = history.begin();
    let asked = node;
    let lost = false;
    for (let attempt = 1; attempt <= (repeatable ? TRIES_MAX : 1); attempt++) {
      if (attempt > 1) this.#sim.faults.count("retried elsewhere");
      const answer = await this.#call(
        (queue) => this.#send(queue, call),
        asked,
        (reason) => {
          if (reason === "idempotency-mismatch") history.mismatched(call.idempotency?.key ?? "?");
          if (!repeatable && NOTHING_HAPPENED.has(reason)) history.refused(call.tasks, reason);
        },
      );
      asked = undefined;
      if (answer === null) continue;
      this.#same(call, answer);
      if (lost && !answer.existing && !answer.replayed)
        this.#sim.fail(
          "T8",
          `${answer.ids.join(" ")} were submitted twice as if for the first time`,
        );
      if (attempt < TRIES_MAX && repeatable && this.#isLost()) {
        lost = true;
        asked = another(this.#sim, this.#loss, node ?? null);
        continue;
      }
      history.submitted(answer.ids, since, attempt === 1 && !answer.existing && !answer.replayed);
      await this.#misuse.otherBody(call);
      await this.#misuse.twin(call);
      return;
    }
  }

  /** What the member said never came: so it is asked again, elsewhere. */
  #isLost(): boolean {
    const { faults, mood, options } = this.#sim;
    if (!mood.wild() || !options.families.has("lost-answer") || !this.#loss.chance(0.3))
      return false;
    faults.count("lost-answer");
    return true;
  }

  /** Under one key the first answer is given again: tasks as they were then. */
  #same({ idempotency }: SubmitCall, { ids, tasks = [] }: Submitted): void {
    if (idempotency === null) return;
    const { principal, route, key } = idempotency;
    const asThen = tasks.map(({ id, status, version }) => [id, status, version]);
    this.#sim.history.answeredUnder(`${principal} ${route} ${key}`, [ids, asThen]);
  }

  #send(queue: FlotillaQueue, { tasks, idempotency }: SubmitCall) {
    return queue.submit(tasks, { principal: this.#name, idempotency });
  }

  /** The same submit again, long after it was answered, and sometimes at two members at once (K2). */
  async #repeat(): Promise<void> {
    const call = this.#earlier.length === 0 ? null : this.#prng.pick(this.#earlier);
    if (call === null) return;
    const since = this.#sim.history.begin();
    const twice = this.#prng.chance(0.5);
    if (twice && call.idempotency !== null) this.#sim.faults.count("one key at two members");
    const answers = await Promise.all(
      Array.from({ length: twice ? 2 : 1 }, () => this.#call((queue) => this.#send(queue, call))),
    );
    for (const answer of answers) {
      if (answer === null) continue;
      this.#same(call, answer);
      this.#sim.history.submitted(answer.ids, since, false);
    }
  }

  async #burst(): Promise<void> {
    this.#sim.faults.count("burst");
    await Promise.all(
      Array.from({ length: this.#prng.between(10, 60) }, () => this.#submit(this.#newSubmit())),
    );
  }

  /** One more write at this member. */
  write(node: SimNode): Promise<void> {
    return this.#submit(this.#newSubmit(), node);
  }

  // ------------------------------------------------------------------ the rest

  /** Of what is known, at this member. */
  read(node: SimNode): Promise<void> {
    return this.#stats(node);
  }

  async #get(node?: SimNode): Promise<void> {
    const id = this.#pick();
    if (id === null) return;
    const since = this.#sim.history.beginRead();
    const answer = await this.#call((queue) => queue.get(id, "linearizable"), node);
    if (answer !== null) this.#sim.history.read(id, answer.task, answer.read.appliedIndex, since);
  }

  async #cancel(): Promise<void> {
    const id = this.#pick();
    if (id === null) return;
    const cancel = async (queue: FlotillaQueue, idempotency: IdempotencyScope | null) => {
      await queue.cancel(id, { principal: this.#name, idempotency });
      return true;
    };
    const scope = this.#keyed.next ? this.#keyed.scope("cancel", this.#name) : null;
    const answer = await (scope === null
      ? this.#call((queue) => cancel(queue, null))
      : this.#keyed.call(
          scope,
          (queue) => cancel(queue, scope),
          () => "cancelled",
        ));
    if (answer === true) this.#sim.history.cancelled(id);
  }

  async #retry(): Promise<void> {
    const id = this.#pick();
    if (id === null) return;
    const principal = this.#name;
    if (this.#keyed.next) {
      const idempotency = this.#keyed.scope("retry", this.#name);
      await this.#keyed.call(
        idempotency,
        (queue) => queue.retry(id, null, { principal, idempotency }),
        ({ task }) => [task?.id, task?.status, task?.version],
      );
      return;
    }
    await this.#call((queue) => queue.retry(id, null, { principal, idempotency: null }));
  }

  async #waitFinal(): Promise<void> {
    const id = this.#pick();
    if (id === null) return;
    const waitMs: Millis = this.#prng.between(0, 2_000);
    const since = this.#sim.history.begin();
    const begunAt = this.#sim.world.now;
    const answer = await this.#call(async (queue) => ({
      task: await queue.waitFinal(id, waitMs, null),
    }));
    if (answer !== null)
      this.#sim.history.waited(id, {
        task: answer.task,
        since,
        lastedMs: this.#sim.world.now - begunAt,
        waitMs,
      });
  }

  async #list(): Promise<void> {
    const p = this.#prng;
    const filter = p.chance(0.5)
      ? {}
      : { statuses: [p.pick(["Pending", "Running", "Completed"] as const)] };
    const since = this.#sim.history.beginRead();
    const answer = await this.#call((queue) => queue.list(filter, 1_000, null, "linearizable"));
    if (answer === null) return;
    const { page, read } = answer;
    const whole = !("statuses" in filter) && page.next === null && page.tasks.length < 1_000;
    this.#sim.history.listed(page.tasks, read.appliedIndex, since, whole);
  }

  async #stats(node?: SimNode): Promise<void> {
    const since = this.#sim.history.beginRead();
    const answer = await this.#call((queue) => queue.stats("linearizable"), node);
    if (answer !== null) this.#sim.history.counted(answer.stats, answer.read.appliedIndex, since);
  }

  async #attempts(): Promise<void> {
    const id = this.#pick();
    if (id === null) return;
    const answer = await this.#call((queue) => queue.attempts(id, "linearizable"));
    const attempts = answer?.attempts ?? [];
    for (const [i, { attempt }] of attempts.entries()) {
      const before = attempts[i - 1];
      if (before !== undefined && attempt <= before.attempt)
        this.#sim.fail("Q1", `the attempts of ${id} are out of order`);
    }
  }

  async #clear(): Promise<void> {
    const status = this.#prng.pick([null, "Pending", "Running", "Completed", "Failed"] as const);
    const principal = this.#name;
    if (this.#keyed.next) {
      const idempotency = this.#keyed.scope("clear", this.#name);
      await this.#keyed.call(
        idempotency,
        (queue) => queue.clear(status, { principal, idempotency }),
        (cleared) => cleared,
      );
      return;
    }
    await this.#call((queue) => queue.clear(status, { principal, idempotency: null }));
  }
}
