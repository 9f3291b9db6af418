/**
 * One run: a cluster of whole members in virtual time, clients and workers, faults, and the rules that must
 * hold after every event. Two phases: safety under faults; then a random core of members is healed, the rest
 * stays dead, and the core must make progress.
 */
import type { FlotillaQueue } from "../../src/queue/queue.ts";
import type { NodeId } from "../../src/raft/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import { Client } from "./clients.ts";
import type { DiskFaults } from "./disk.ts";
import type { Mood } from "./executor.ts";
import { Faults } from "./faults.ts";
import { History } from "./history.ts";
import { ALL_INVARIANTS } from "./invariants/all.ts";
import type { Invariant } from "./invariants/invariant.ts";
import { Ledger } from "./ledger.ts";
import { checkLiveness } from "./liveness.ts";
import { Network } from "./network.ts";
import { SimNode, type StateLoss } from "./node.ts";
import { describeOptions, drawOptions, type FaultFamily, type SimOptions } from "./options.ts";
import { Trace } from "./trace.ts";
import { OutsideWorker } from "./workers.ts";
import { World } from "./world.ts";

export interface SimFailure {
  readonly rule: string;
  readonly detail: string;
  readonly atMs: Millis;
  readonly event: number;
}

export interface SimResult {
  readonly seed: number;
  readonly failure: SimFailure | null;
  readonly hash: string;
  readonly events: number;
  readonly simulatedMs: Millis;
  readonly entries: number;
  readonly tasks: number;
  readonly counts: History["counts"];
  readonly struck: ReadonlyMap<FaultFamily, number>;
  readonly lines: readonly string[];
}

export interface RunOptions {
  /** In place of what the seed draws. */
  readonly override?: Partial<SimOptions>;
  /** Gets each line of the story as it happens, the members' own log included. */
  readonly print?: (line: string) => void;
}

const MARK_MS: Millis = 1_000;
/** A client waits this much longer than the member promises to take. */
const CLIENT_PATIENCE_MS: Millis = 1_000;

export class Simulation {
  readonly options: SimOptions;
  readonly world: World;
  readonly trace: Trace;
  readonly verbose: boolean;
  readonly network: Network;
  readonly nodes: readonly SimNode[];
  readonly nodeIds: readonly NodeId[];
  readonly faults: Faults;
  readonly history: History;
  readonly ledger: Ledger;
  readonly invariants: readonly Invariant[];
  readonly mood: Mood;
  /** State hashes are compared at multiples of this index. */
  readonly hashEvery: number;
  /** Highest index applied anywhere. */
  appliedMax = 0;
  failure: SimFailure | null = null;
  /** Nobody asks anything any more. */
  over = false;
  /** When something last happened that keeps members from hearing each other. */
  disturbedAt: Millis = 0;
  /** Clients and workers that have not come to their end. */
  busy = 0;
  #wild = true;
  #core: readonly SimNode[] | null = null;

  constructor(seed: number, run: RunOptions = {}) {
    this.options = { ...drawOptions(seed), ...run.override };
    const { options } = this;
    this.world = new World(seed);
    this.verbose = run.print !== undefined;
    this.trace = new Trace(this.world, run.print ?? null);
    this.trace.say("sim", describeOptions(options));
    this.mood = {
      wild: () => this.#wild,
      crashes: options.families.has("executor-crash"),
      hangs: options.families.has("executor-hang"),
    };
    this.hashEvery = 64;
    this.network = new Network(this.world, {
      delayMin: options.delayMinMs,
      delayMax: options.delayMaxMs,
      loss: options.loss,
      duplicate: options.duplicate,
      reorder: options.reorder,
      sendLimit: options.sendLimit,
      codec: options.codec,
    });
    this.network.watch = {
      sent: (from, to, frame) =>
        this.trace.mark(
          `${from}>${to} ${frame.kind === "raft" ? `${frame.message.type} ${frame.message.term}` : frame.kind}`,
        ),
      delivered: (from, to) => this.trace.mark(`${to}<${from}`),
    };
    this.faults = new Faults(this);
    this.history = new History(this);
    this.ledger = new Ledger(this);
    this.nodes = Array.from({ length: options.members }, (_, i) => new SimNode(this, i + 1));
    this.nodeIds = this.nodes.map(({ id }) => id);
    this.invariants = [this.ledger, ...ALL_INVARIANTS.map((make) => make(this))];
  }

  // ------------------------------------------------------------------ what the parts use

  /** A rule is broken: the run ends with this event. */
  fail(rule: string, detail: string): void {
    if (this.failure !== null) return;
    this.failure = { rule, detail, atMs: this.world.now, event: this.world.events };
    this.trace.say("sim", `BROKEN ${rule}: ${detail}`);
  }

  disturbed(): void {
    this.disturbedAt = this.world.now;
  }

  sleep(ms: Millis): Promise<void> {
    return new Promise((resolve) => {
      this.world.at(this.world.now + ms, resolve);
    });
  }

  /** A client's call at a member, over a network of its own. Rejects when nothing is heard in time. */
  call<T>(
    node: SimNode,
    run: (queue: FlotillaQueue) => Promise<T>,
    extraMs: Millis = 0,
  ): Promise<T> {
    const { world } = this;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const later = (settle: () => void): void => world.at(world.now + this.network.delay(), settle);
    const timeoutMs = this.options.requestTimeoutMs + CLIENT_PATIENCE_MS + extraMs;
    world.at(world.now + timeoutMs, () => reject(new Error("nothing was heard in time")));
    later(() => {
      const { clock } = node;
      if (!clock.alive) {
        reject(new Error(`${node.id} is down`));
        return;
      }
      clock.enter(() => {
        if (node.queue === null) {
          later(() => reject(new Error(`${node.id} is starting`)));
          return;
        }
        run(node.queue).then(
          (value) => clock.alive && later(() => resolve(value)),
          (error: unknown) => clock.alive && later(() => reject(error)),
        );
      });
    });
    return promise;
  }

  diskFaults(node: SimNode): DiskFaults {
    return this.faults.disk(node);
  }

  setWall(node: SimNode, offset: Millis): void {
    this.trace.say(node.id, `wall clock is off by ${Math.round(offset)} ms`);
    node.wallOffset = offset;
    node.clock.wallOffset = offset;
  }

  crashed(node: SimNode, loss: StateLoss): void {
    node.kill(loss);
    this.#restartLater(node);
  }

  diedAtEffect(node: SimNode, die: () => void): void {
    this.world.at(this.world.now, () => {
      die();
      this.#restartLater(node);
    });
  }

  #restartLater(node: SimNode): void {
    const { prng } = this.world;
    const ms = prng.pick([0, 20, 300, 2_000, 8_000]) * (0.5 + prng.float());
    this.world.at(this.world.now + ms, () => {
      if (this.#core === null || this.#core.includes(node)) node.start();
    });
  }

  /** Members that are alive for good after the healing; before it, those that are up. */
  core(): readonly SimNode[] {
    return this.#core ?? this.nodes.filter((node) => node.up);
  }

  leader(): SimNode | null {
    return (
      this.nodes.find(
        ({ up, leadership }) => up && leadership?.role === "leader" && leadership.active,
      ) ?? null
    );
  }

  /** Runs until `done`, a broken rule, or so many ms more. */
  async until(ms: Millis, done: () => boolean = () => false): Promise<boolean> {
    await this.world.run(this.world.now + ms, () => this.failure !== null || done());
    return this.failure === null && done();
  }

  // ------------------------------------------------------------------ the run

  async run(): Promise<SimResult> {
    const { options, world } = this;
    const { prng } = world;
    if (options.families.has("skew")) this.#skew();
    if (options.families.has("drift"))
      for (const node of this.nodes) node.rate = 0.9 + prng.float() * 0.2;
    for (const node of this.nodes) world.at(prng.float() * 300, () => node.start());
    const clients = Array.from({ length: options.clients }, (_, i) => new Client(this, i + 1));
    // One of each kind always works, so that no task waits for ever.
    const workers = Array.from(
      { length: options.workers + 2 },
      (_, i) => new OutsideWorker(this, i + 1, i % 2 === 0),
    );
    world.at(prng.float() * 2_000, () => this.faults.start());
    for (const someone of [...clients, ...workers]) {
      this.busy += 1;
      someone.run().then(
        () => {
          this.busy -= 1;
        },
        (error: unknown) =>
          this.fail("simulator", error instanceof Error ? (error.stack ?? error.message) : "?"),
      );
    }
    void new Client(this, 0).watch();
    this.#markEverySecond();
    await this.until(options.faultsMs);
    if (this.failure === null) {
      this.#heal();
      await checkLiveness(this);
    }
    if (this.failure === null) for (const invariant of this.invariants) invariant.ended?.();
    return this.#result();
  }

  #markEverySecond(): void {
    this.world.at(this.world.now + MARK_MS, () => {
      for (const invariant of this.invariants) invariant.marked?.();
      this.#markEverySecond();
    });
  }

  /** A minority is born with a wrong wall clock. */
  #skew(): void {
    const { prng } = this.world;
    const most = Math.floor((this.nodes.length - 1) / 2);
    const wrong = this.nodes.toSorted(() => prng.float() - 0.5).slice(0, prng.between(0, most));
    for (const node of wrong)
      this.setWall(node, prng.pick([-1, 1]) * prng.pick([20_000, 3_600_000]));
    for (const node of this.nodes)
      if (!wrong.includes(node)) this.setWall(node, prng.float() * 200);
  }

  #heal(): void {
    const { prng } = this.world;
    this.faults.stop();
    this.network.heal();
    Object.assign(this.network.options, { loss: 0, duplicate: 0, reorder: 0, sendLimit: 100_000 });
    this.network.options.delayMax = Math.min(this.network.options.delayMax, 5);
    this.#wild = false;
    const quorum = Math.floor(this.nodes.length / 2) + 1;
    // Before the founding every member is needed.
    const founded = this.nodes.every(({ disk }) => disk.entries.length > 0);
    const size = founded ? prng.between(quorum, this.nodes.length) : this.nodes.length;
    const core = this.nodes.toSorted(() => prng.float() - 0.5).slice(0, size);
    this.#core = core;
    this.trace.say("sim", `heals ${core.map(({ id }) => id).join(" ")}; the rest is dead`);
    for (const node of this.nodes) {
      if (!core.includes(node)) {
        node.kill("none");
        continue;
      }
      node.killAfterEffects(Number.POSITIVE_INFINITY);
      node.store?.recover();
      node.clock.resume();
      this.setWall(node, prng.float() * 100);
      if (!node.up) this.world.at(this.world.now + prng.float() * 500, () => node.start());
    }
  }

  #result(): SimResult {
    return {
      seed: this.options.seed,
      failure: this.failure,
      hash: this.trace.hash,
      events: this.world.events,
      simulatedMs: this.world.now,
      entries: this.appliedMax,
      tasks: this.ledger.tasks.size,
      counts: this.history.counts,
      struck: this.faults.struck,
      lines: this.trace.lines,
    };
  }

  /** Frees the databases. */
  close(): void {
    for (const node of this.nodes) {
      node.kill("none");
      node.db?.close();
    }
  }
}
