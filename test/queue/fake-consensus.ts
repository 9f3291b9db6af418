/**
 * A replicated log without Raft: members in virtual time that keep the promises of `Consensus`. One entry
 * is committed a round after it was sealed; the leader and the followers apply it a little apart.
 */
import { decodeCommand } from "../../src/queue/command-codec.ts";
import { Database } from "bun:sqlite";
import type { Command } from "../../src/queue/commands.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { FlotillaQueue, type FlotillaQueueOptions } from "../../src/queue/queue.ts";
import { InlineReader } from "../../src/queue/task-reader.ts";
import type { Task } from "../../src/queue/types.ts";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Configuration,
  type LogIndex,
  type NodeId,
  type Term,
} from "../../src/raft/types.ts";
import {
  CallError,
  type Consensus,
  ConsensusError,
  type ConsensusStatus,
  type Leadership,
  type SealedRequest,
  type SubmitOptions,
} from "../../src/replica/consensus.ts";
import type { CommittedEntry, Log, LoggedRequest, Millis } from "../../src/replica/ports.ts";
import { NodeClock, World } from "../sim/world.ts";

/** One way between two members. */
const HOP_MS = 1;
/** From sealing to commit: to a follower's disk and back. */
export const ROUND_MS = 2;
const REQUEST_TIMEOUT_MS = 5_000;

interface Pending {
  readonly command: Uint8Array;
  readonly hint: unknown;
  readonly deadline: Millis;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly thisLeadership: boolean;
  sentTerm: number;
}

type SealHook = Parameters<Consensus["onSeal"]>[0];
type Handler = (body: unknown, from: NodeId) => Promise<unknown>;
interface Queued extends SealedRequest {
  readonly request: LoggedRequest;
}

export const quietLog: Log = { debug() {}, info() {}, warn() {}, error() {} };

export class Cluster {
  readonly world: World;
  readonly members: Member[];
  readonly log: CommittedEntry[] = [];
  term = 0;
  leader: Member | null = null;
  /** False: nothing commits and no read is confirmed. */
  quorum = true;
  /** Entries that the leader has sealed and that are not committed. */
  underWay = 0;

  constructor(size: number, options: Partial<FlotillaQueueOptions> = {}, seed = 1) {
    this.world = new World(seed);
    this.members = Array.from({ length: size }, (_, i) => new Member(this, `n${i + 1}`, options));
  }

  member(index: number): Member {
    const member = this.members[index];
    if (member === undefined) throw new Error(`there is no member ${index}`);
    return member;
  }

  /** Every command committed so far, oldest first, with the index of its entry. */
  commands(): { index: number; command: Command }[] {
    return this.log.flatMap(({ index, requests }) =>
      requests.map(({ command }) => ({ index, command: decodeCommand(command) })),
    );
  }

  async run(ms: Millis): Promise<void> {
    await this.world.run(this.world.now + ms);
  }

  /** Waits in virtual time for a promise; fails loudly when it does not settle within `ms`. */
  async settled<T>(promise: Promise<T>, ms: Millis = 20_000): Promise<T> {
    let over = false;
    promise.then(
      () => (over = true),
      () => (over = true),
    );
    // An event each millisecond: the end of a long chain of promises is seen in its own time.
    const tick = (): void => {
      if (!over) this.world.at(this.world.now + 1, tick);
    };
    tick();
    await this.world.run(this.world.now + ms, () => over);
    if (!over) throw new Error(`nothing was answered within ${ms} ms of virtual time`);
    return promise;
  }

  async elect(index: number): Promise<void> {
    this.term += 1;
    const leader = this.member(index);
    this.leader = leader;
    this.underWay = 0;
    for (const member of this.members) member.deposed();
    for (const member of this.members) member.tell(false);
    this.commit([], 0);
    await this.run(10);
  }

  /** The leader is gone and nobody follows it yet. */
  depose(): void {
    this.term += 1;
    this.leader = null;
    for (const member of this.members) member.deposed();
    for (const member of this.members) member.tell(false);
  }

  commit(requests: readonly LoggedRequest[], now: Millis): void {
    this.log.push({
      index: asIndex(this.log.length + 1),
      term: asTerm(this.term),
      now,
      seed: this.world.prng.uint32(),
      requests,
      acks: [],
      bootstrap: null,
    });
    for (const member of this.members) {
      const delay = member === this.leader ? 0 : HOP_MS;
      this.world.at(this.world.now + delay, () => member.catchUp());
    }
  }
}

export class Member implements Consensus {
  readonly id: NodeId;
  readonly boot = 1;
  readonly clock: NodeClock;
  readonly machine: TaskMachine;
  readonly queue: FlotillaQueue;
  /** True: no message comes or goes, nothing is applied. */
  cut = false;
  /** True: its own log stands still, so that it applies nothing; it hears and answers all the same. */
  stalled = false;
  /** Why it has not caught up yet. */
  behind: string | null = null;
  #db = new Database(":memory:");
  readonly #cluster: Cluster;
  readonly #pending = new Map<number, Pending>();
  readonly #handlers = new Map<string, Handler>();
  readonly #listeners: ((leadership: Leadership) => void)[] = [];
  #seal: SealHook | null = null;
  #batch: Queued[] = [];
  #sealing = false;
  #seq = 1;
  #active = false;
  #reads: { index: number; resolve: (index: LogIndex) => void }[] = [];

  constructor(cluster: Cluster, id: string, options: Partial<FlotillaQueueOptions>) {
    this.#cluster = cluster;
    this.id = asNodeId(id);
    this.clock = new NodeClock(cluster.world);
    this.machine = TaskMachine.open(this.#db);
    this.queue = new FlotillaQueue({
      consensus: this,
      machine: this.machine,
      reader: new InlineReader(this.#db),
      clock: this.clock,
      log: quietLog,
      requestTimeoutMs: REQUEST_TIMEOUT_MS,
      contactTimeoutMs: 300,
      ...options,
    });
  }

  get leads(): boolean {
    return this.#cluster.leader === this;
  }

  task(id: string): Task {
    const task = this.machine.task(id);
    if (task === null) throw new Error(`${this.id} knows no task ${id}`);
    return task;
  }

  // ------------------------------------------------------------------ Consensus

  submit(command: Uint8Array, options: SubmitOptions): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const seq = this.#seq++;
    const deadline = this.clock.monotonic() + options.timeoutMs;
    const hint: unknown = JSON.parse(JSON.stringify(options.hint ?? null));
    const { thisLeadership = false } = options;
    this.#pending.set(seq, {
      command,
      hint,
      deadline,
      resolve,
      reject,
      thisLeadership,
      sentTerm: 0,
    });
    this.#cluster.world.at(deadline, () => {
      const pending = this.#pending.get(seq);
      if (pending === undefined) return;
      this.#pending.delete(seq);
      pending.reject(
        new ConsensusError(pending.sentTerm === 0 ? "no-leader" : "outcome-unknown", "too late"),
      );
    });
    this.clock.soon(() => this.#flush());
    return promise;
  }

  linearize(timeoutMs: Millis): Promise<LogIndex> {
    const { promise, resolve, reject } = Promise.withResolvers<LogIndex>();
    const fail = (): void => reject(new ConsensusError("no-quorum", "no quorum"));
    const late = this.clock.after(timeoutMs, fail);
    const ask = (): void => {
      const { leader } = this.#cluster;
      if (leader === null || !this.#cluster.quorum || this.cut || leader.cut) {
        this.clock.after(10, ask);
        return;
      }
      const index = this.#cluster.log.length;
      this.clock.after(ROUND_MS, () => {
        late.cancel();
        this.#reads.push({ index, resolve });
        this.#wakeReads();
      });
    };
    ask();
    return promise;
  }

  async confirmLeadership(timeoutMs: Millis): Promise<Term> {
    const { term } = this.#cluster;
    await this.linearize(timeoutMs);
    if (!this.leads || this.#cluster.term !== term) throw notLeader();
    return asTerm(term);
  }

  call(method: string, body: unknown, timeoutMs: Millis): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const sent = JSON.stringify(body);
    const late = this.clock.after(timeoutMs, () => {
      reject(new ConsensusError("timeout", `${method}: no answer`));
    });
    let asked = 0;
    const settled = (): void => {
      late.cancel();
      asked = Number.POSITIVE_INFINITY;
    };
    promise.then(settled, settled);
    const deadline = this.clock.monotonic() + timeoutMs;
    const ask = (): void => {
      if (this.clock.monotonic() >= deadline) return;
      const { leader, term } = this.#cluster;
      // Like the driver: a question that was lost goes to the next leader, not to this one again.
      this.clock.after(10, () => asked < this.#cluster.term && ask());
      if (leader === null || this.cut || leader.cut) return;
      asked = term;
      this.#deliver(leader, method, sent).then(
        (answer) => resolve(answer),
        (error: unknown) => {
          if (error instanceof ConsensusError && error.reason === "not-leader") {
            asked = Math.min(asked, term - 1);
            this.clock.after(10, ask);
          } else if (error instanceof CallError) reject(error);
          else reject(new ConsensusError("timeout", String(error)));
        },
      );
    };
    ask();
    return promise;
  }

  serve(method: string, handler: Handler): void {
    this.#handlers.set(method, handler);
  }

  notify(to: NodeId, method: string, body: unknown): void {
    const target = this.#cluster.members.find(({ id }) => id === to);
    if (target !== undefined) this.#deliver(target, method, JSON.stringify(body)).catch(() => {});
  }

  onSeal(hook: SealHook): void {
    this.#seal = hook;
  }

  onLeadership(listener: (leadership: Leadership) => void): void {
    this.#listeners.push(listener);
    listener(this.#leadership());
  }

  logNow(): Millis {
    return this.leads
      ? Math.max(this.clock.wall(), this.machine.logTime())
      : this.machine.logTime();
  }

  transfer(): Promise<boolean> {
    return Promise.resolve(false);
  }

  removed(): null {
    return null;
  }

  condemned(): null {
    return null;
  }

  status(): ConsensusStatus {
    const { leader, members, log } = this.#cluster;
    const configuration: Configuration = {
      voters: members.map(({ id }) => id),
      outgoing: [],
      learners: [],
      learnersNext: [],
      members: Object.fromEntries(
        members.map(({ id }) => [id, { url: `http://${id}`, incarnation: id }]),
      ),
    };
    return {
      ...this.#leadership(),
      id: this.id,
      clusterId: "c",
      commit: asIndex(log.length),
      applied: this.machine.applied().index,
      lastIndex: asIndex(log.length),
      configuration,
      peers: members
        .filter((member) => member !== this)
        .map((member) => ({
          id: member.id,
          match: member.machine.applied().index,
          state: "replicate",
          lastContactMs: member.cut ? null : 5,
          roundTripMs: HOP_MS * 2,
          connected: !member.cut,
        })),
      contactMs: leader === null || this.cut || leader.cut ? null : 5,
      stalenessMs: this.cut ? null : 5,
      waiting: null,
      retired: false,
      learners: new Map(),
      receiving: null,
      catchingUp: this.behind,
      condemned: null,
      alarms: [],
      machineVersions: { inForce: 1, own: 1, supported: 1 },
    };
  }

  /** The state of another member takes the place of this one's, as after a snapshot: no signals tell of it. */
  install(from: Member): void {
    from.machine.flush();
    this.#db = Database.deserialize(from.#db.serialize());
    this.machine.reopen(this.#db);
    this.queue.recheck();
  }

  // ------------------------------------------------------------------ the log

  /** A change of leaders: what was sealed nowhere goes to the next one. */
  deposed(): void {
    this.#batch = [];
    this.#active = false;
    for (const [seq, pending] of this.#pending) {
      pending.sentTerm = 0;
      if (!pending.thisLeadership) continue;
      this.#pending.delete(seq);
      pending.reject(notLeader());
    }
  }

  tell(active: boolean): void {
    this.#active = active;
    for (const listener of this.#listeners) listener(this.#leadership());
    this.#flush();
  }

  catchUp(): void {
    if (this.cut || this.stalled) return;
    const { log } = this.#cluster;
    const entries = log.slice(this.machine.applied().index);
    const answers = entries.length === 0 ? [] : this.machine.apply(entries);
    for (const { member, seq, answer } of answers) {
      if (member !== this.id) continue;
      this.#pending.get(seq)?.resolve(answer);
      this.#pending.delete(seq);
    }
    this.#wakeReads();
    if (this.leads && !this.#active && log.at(-1)?.term === this.#cluster.term) this.tell(true);
  }

  #wakeReads(): void {
    const applied = this.machine.applied().index;
    const ready = this.#reads.filter(({ index }) => index <= applied);
    this.#reads = this.#reads.filter(({ index }) => index > applied);
    for (const { resolve } of ready) resolve(applied);
  }

  #leadership(): Leadership {
    const { leader, term } = this.#cluster;
    return {
      role: leader === this ? "leader" : "follower",
      term: asTerm(term),
      leader: leader?.id ?? null,
      active: leader === this && this.#active,
    };
  }

  #flush(): void {
    const { leader, term, world } = this.#cluster;
    if (leader === null || this.cut || leader.cut) return;
    const items: Queued[] = [];
    for (const [seq, pending] of this.#pending) {
      if (pending.sentTerm === term) continue;
      pending.sentTerm = term;
      items.push({ hint: pending.hint, request: this.#request(seq, pending.command) });
    }
    if (items.length === 0) return;
    if (leader === this) this.#propose(items);
    else world.at(world.now + HOP_MS, () => leader.leads && leader.#propose(items));
  }

  #request(seq: number, command: Uint8Array): LoggedRequest {
    return { member: this.id, boot: 1, seq, command };
  }

  #propose(items: readonly Queued[]): void {
    this.#batch.push(...items);
    if (this.#sealing) return;
    this.#sealing = true;
    this.clock.soon(() => {
      this.#sealing = false;
      this.#sealNow();
    });
  }

  #sealNow(): void {
    const cluster = this.#cluster;
    if (!this.leads || this.#batch.length === 0) return;
    if (!this.#active) {
      this.clock.after(1, () => this.#propose([]));
      return;
    }
    const batch = this.#batch;
    this.#batch = [];
    const requests = batch.map(({ request }) => request);
    cluster.underWay += 1;
    const index = asIndex(cluster.log.length + cluster.underWay);
    this.#seal?.(batch, index, (command) => {
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      const seq = this.#seq++;
      const deadline = this.clock.monotonic() + REQUEST_TIMEOUT_MS;
      const sentTerm = cluster.term;
      const waits = { deadline, resolve, reject, sentTerm };
      this.#pending.set(seq, { command, hint: null, thisLeadership: false, ...waits });
      requests.push(this.#request(seq, command));
      return promise;
    });
    const { term } = cluster;
    const now = this.logNow();
    this.clock.after(ROUND_MS, () => {
      if (cluster.term !== term) return;
      cluster.underWay -= 1;
      if (cluster.quorum) cluster.commit(requests, now);
    });
  }

  #deliver(target: Member, method: string, body: string): Promise<unknown> {
    const { world } = this.#cluster;
    const delay = target === this ? 0 : HOP_MS;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const handle = (): void => {
      if (target.cut || this.cut) return;
      const handler = target.#handlers.get(method);
      if (handler === undefined) {
        reject(new CallError("unknown-method", method));
        return;
      }
      const back = (settle: () => void): void => {
        world.at(world.now + delay, () => !target.cut && !this.cut && settle());
      };
      handler(JSON.parse(body), this.id).then(
        (answer) => {
          const text = JSON.stringify(answer ?? null);
          back(() => resolve(JSON.parse(text)));
        },
        (error: unknown) => back(() => reject(error)),
      );
    };
    // Like the driver: what a leader asks itself is handled at once.
    if (target === this) handle();
    else world.at(world.now + delay, handle);
    return promise;
  }
}

function notLeader(): ConsensusError {
  return new ConsensusError("not-leader", "this member does not lead");
}
