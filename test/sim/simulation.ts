/**
 * One run: a cluster of whole members in virtual time, clients and workers, faults, and the rules that must
 * hold after every event. Two phases: safety under faults; then a random core of members is healed, the rest
 * stays dead, and the core must make progress.
 */
import { TaskMachine } from "../../src/queue/machine.ts";
import type { FlotillaQueue } from "../../src/queue/queue.ts";
import { QueueError } from "../../src/queue/service.ts";
import { decodeConfigurationEntry } from "../../src/raft/configuration.ts";
import type { NodeId } from "../../src/raft/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import { Client } from "./clients.ts";
import { drawCore } from "./core.ts";
import { Echoes } from "./echo.ts";
import type { DiskFaults, Membership } from "./log-store.ts";
import type { Mood } from "./executor.ts";
import { type Action, Faults } from "./faults.ts";
import { calm, handOverAtLast, rotAtLast, settle } from "./healing.ts";
import { History } from "./history.ts";
import { ALL_INVARIANTS } from "./invariants/all.ts";
import { type Watching, watching } from "./invariants/invariant.ts";
import { Ledger } from "./ledger.ts";
import { checkLiveness } from "./liveness/phase.ts";
import { Network } from "./network.ts";
import { SimNode, type StateLoss } from "./node.ts";
import { openState } from "./database.ts";
import { OddChains } from "./odd-apply.ts";
import { Operator } from "./operators.ts";
import {
  describeOptions,
  drawOptions,
  type FaultFamily,
  type SimOptions,
  streamOf,
} from "./options.ts";
import { oldWorkers, rescued, restored } from "./reborn.ts";
import type { Reborn } from "./beginning.ts";
import { backUpLater, goOn } from "./sequel.ts";
import { Trace } from "./trace.ts";
import { watchedFrames } from "./watched/frames.ts";
import { OutsideWorker } from "./workers.ts";
import { StandstillError, World } from "./world.ts";

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
  readonly struck: ReadonlyMap<FaultFamily | Action, number>;
  readonly lines: readonly string[];
}

export interface RunOptions {
  /** In place of what the seed draws. */
  readonly override?: Partial<SimOptions>;
  /** The cluster begins out of another one's state. */
  readonly reborn?: Reborn;
  /** Gets each line of the story as it happens, the members' own log included. */
  readonly print?: (line: string) => void;
}

const MARK_MS: Millis = 1_000;
const OFTEN_MS: Millis = 100;
/** For the first leader; lost frames may keep it away for longer, and faults come all the same. */
const FOUNDING_MS: Millis = 4_000;
/** A client waits this much longer than the member promises to take. */
const CLIENT_PATIENCE_MS: Millis = 1_000;

export class Simulation {
  readonly options: SimOptions;
  readonly world: World;
  readonly trace: Trace;
  readonly verbose: boolean;
  readonly network: Network;
  /** Everyone who ever was there, in the order of coming. */
  readonly nodes: SimNode[] = [];
  readonly founders: readonly NodeId[];
  /** The newest membership that was applied anywhere. */
  membership: Membership | null = null;
  readonly faults: Faults;
  readonly history: History;
  readonly ledger: Ledger;
  readonly oddChains = new OddChains(this);
  /** The rules that look at each kind of event. */
  readonly watching: Watching;
  /** Terms of the committed entries; [0] is index 1. */
  readonly committedTerms: number[] = [1];
  readonly reborn: Reborn | null;
  readonly #run: RunOptions;
  readonly #byId = new Map<NodeId, SimNode>();
  readonly mood: Mood;
  /** Highest index applied anywhere. */
  appliedMax = 0;
  failure: SimFailure | null = null;
  /** What came of the cluster that began out of this one's state. */
  sequel = { events: 0, simulatedMs: 0 };
  /** Nobody asks anything any more. */
  over = false;
  /** When something last happened that keeps members from hearing each other. */
  disturbedAt: Millis = 0;
  /** Clients, and workers, that have not come to their end. */
  asking = 0;
  working = 0;
  /** Operators that have something under way. */
  operating = 0;
  /** Whom somebody wants to remove, or to give its place away: that may still happen when all is healed. */
  readonly leaving = new Set<NodeId>();
  #wild = true;
  readonly #hand: Client;
  #core: readonly SimNode[] | null = null;

  constructor(seed: number, run: RunOptions = {}) {
    this.options = { ...drawOptions(seed), ...run.override };
    const { options } = this;
    this.#run = run;
    this.reborn = run.reborn ?? null;
    this.world = new World(seed, this.reborn?.of.world.now);
    this.verbose = run.print !== undefined;
    this.trace = new Trace(this.world, run.print ?? null);
    this.trace.say("sim", describeOptions(options));
    this.mood = {
      wild: () => this.#wild,
      crashes: options.families.has("executor-crash"),
      hangs: options.families.has("executor-hang"),
      struck: (what) => this.faults.count(what),
    };
    const echoes = options.families.has("echo") ? new Echoes(streamOf(seed, "echoes")) : null;
    const network = {
      delayMin: options.delayMinMs,
      delayMax: options.delayMaxMs,
      loss: options.loss,
      duplicate: options.duplicate,
      reorder: options.reorder,
      sendLimit: options.sendLimit,
      codec: options.codec,
      late: options.late,
      cut: options.cut,
      garbage: options.garbage,
      corrupt: options.corrupt,
    };
    this.network = new Network(this.world, network, echoes);
    this.network.watch = watchedFrames(this, (id) => this.#byId.get(id));
    this.faults = new Faults(this);
    this.history = new History(this);
    this.ledger = new Ledger(this);
    this.watching = watching([this.ledger, ...ALL_INVARIANTS.map((make) => make(this))]);
    if (this.reborn !== null) this.#begin(this.reborn);
    for (let i = 0; i < options.members; i++) this.addNode();
    this.founders = this.#founders();
    this.#hand = new Client(this, 0);
  }

  /** What is known of the cluster with which this one begins. */
  #begin({ of, beginning, state }: Reborn): void {
    const { index, term, foundations } = beginning;
    this.appliedMax = index;
    this.committedTerms.length = 0;
    for (let i = 1; i < index; i++) this.committedTerms.push(1);
    this.committedTerms.push(term);
    const configuration = decodeConfigurationEntry(foundations[1]);
    this.membership = { index, configuration };
    for (const id of of.history.asked) this.history.asked.add(id);
    const db = openState(state);
    try {
      const machine = TaskMachine.open(db);
      for (const rule of this.watching.begins) rule.begins(machine, db);
    } finally {
      db.close();
    }
  }

  /**
   * Who may found the cluster. One that begins out of a state has its first member already; the others wait for it, since
   * all were started with the same `--peers`, or they join it.
   */
  #founders(): readonly NodeId[] {
    const [first, ...others] = this.nodes;
    const { reborn } = this;
    const { seed, families } = this.options;
    const areAll =
      reborn === null
        ? // Who founds it alone has no other clock to go by: where one is wrong, all found it.
          !families.has("lone-return") ||
          families.has("skew") ||
          streamOf(seed, "founders").chance(0.3)
        : reborn.kind === "restore" && streamOf(seed, "peers").chance(0.5);
    if (reborn !== null) first?.begin(reborn);
    if (areAll || first === undefined) return this.nodes.map(({ id }) => id);
    for (const node of others) node.through = first.id;
    return [first.id];
  }

  // ------------------------------------------------------------------ what the parts use

  /** Before the names of clients and workers: those of the cluster before may still be known. */
  get era(): string {
    return this.reborn === null ? "" : "r";
  }

  /** A rule is broken: the run ends with this event. */
  fail(rule: string, detail: string): void {
    if (this.failure !== null) return;
    this.failure = { rule, detail, atMs: this.world.now, event: this.world.events };
    this.trace.say("sim", `BROKEN ${rule}: ${detail}`);
  }

  /** One more member, with an empty folder; not started. */
  addNode(): SimNode {
    const { reborn } = this;
    // Names of the old cluster are used again, but where one of its members comes back itself.
    const taken = reborn?.stranger === null ? 0 : (reborn?.of.nodes.length ?? 0);
    const next = Math.max(taken, ...this.nodes.map((each) => each.number)) + 1;
    return this.#push(new SimNode(this, this.nodes.length > 0 ? next : (reborn?.first ?? 1)));
  }

  #push(node: SimNode): SimNode {
    this.nodes.push(node);
    this.#byId.set(node.id, node);
    return node;
  }

  /** Whom clients and workers turn to: everyone they ever heard of, and once all is healed who is left. */
  addressable(): readonly SimNode[] {
    return this.#wild ? this.nodes.filter(({ ended }) => !ended) : this.core();
  }

  memberships(membership: Membership | undefined): void {
    if (membership !== undefined && membership.index > (this.membership?.index ?? 0))
      this.membership = membership;
  }

  /** Members by the newest membership that was applied; before the founding, the founders. */
  members(): readonly SimNode[] {
    const { membership } = this;
    if (membership === null) return this.nodes;
    return this.nodes.filter(({ id }) => membership.configuration.members[id] !== undefined);
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
    let heard = false;
    const later = (arrive: () => void): void => world.at(world.now + this.network.delay(), arrive);
    const answer = (settle: () => void): void =>
      later(() => {
        heard = true;
        settle();
      });
    const timeoutMs = this.options.requestTimeoutMs + CLIENT_PATIENCE_MS + extraMs;
    // Most calls are over by then, and an error is dear.
    world.at(world.now + timeoutMs, () => {
      if (!heard) reject(new Error("nothing was heard in time"));
    });
    later(() => {
      const { clock } = node;
      if (!clock.alive) {
        reject(new Error(`${node.id} is down`));
        return;
      }
      clock.enter(() => {
        if (node.queue === null) {
          answer(() => reject(new Error(`${node.id} is starting`)));
          return;
        }
        run(node.queue).then(
          (value) => clock.alive && answer(() => resolve(value)),
          (error: unknown) => {
            if (!clock.alive) return;
            // Of a state that is wrong anything may come.
            if (!(error instanceof QueueError || node.isWrong))
              this.fail(
                "errors",
                `${node.id} answers with what is no word of the queue: ${String(error)}`,
              );
            answer(() => reject(error));
          },
        );
      });
    });
    return promise;
  }

  /** A write that this member gets now. */
  writeAt(node: SimNode): void {
    if (!this.#wild) return;
    this.asking += 1;
    this.#follow(this.#hand.write(node), () => (this.asking -= 1));
  }

  /** A linearizable read that this member gets now. */
  readAt(node: SimNode): void {
    if (!this.#wild) return;
    this.asking += 1;
    this.#follow(this.#hand.read(node), () => (this.asking -= 1));
  }

  /** An operator wants another leader; null: whoever is best. */
  transfer(leader: SimNode, to: NodeId | null): void {
    this.trace.say(leader.id, `hands leadership to ${to ?? "the best follower"}`);
    leader.clock.enter(() => {
      const { now } = this.world;
      let under = true;
      void leader.replica?.transfer(to, 1_000).then((done) => {
        if (!done && this.world.now === now) under = false;
      });
      this.world.at(now, () => {
        if (under) for (const rule of this.watching.transferring) rule.transferring(leader);
      });
    });
  }

  /** An operator asks a member for a change of the membership. Null: it is done; else why not. */
  async ask(
    node: SimNode,
    method: string,
    body: unknown,
    timeoutMs: Millis,
  ): Promise<string | null> {
    const { promise, resolve } = Promise.withResolvers<string | null>();
    this.world.at(this.world.now + timeoutMs, () => resolve("nothing was heard in time"));
    node.clock.enter(() => {
      const { replica } = node;
      if (replica === null) return;
      replica.call(method, body, timeoutMs).then(
        () => resolve(null),
        (error: unknown) => resolve(error instanceof Error ? error.message : "?"),
      );
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
    // Who only hears after the healing, when its clock goes on, that its disk had failed before it, is back soon.
    const longest = this.#core === null ? 8_000 : 300;
    const ms = Math.min(longest, prng.pick([0, 20, 300, 2_000, 8_000])) * (0.5 + prng.float());
    this.world.at(this.world.now + ms, () => {
      if (this.#core === null || this.#core.includes(node)) node.start();
    });
  }

  /**
   * Members that are alive for good after the healing, without those that a change which was under way then has
   * removed; before the healing, those that are up.
   */
  core(): readonly SimNode[] {
    return this.#core?.filter((node) => this.isMember(node)) ?? this.nodes.filter(({ up }) => up);
  }

  /** This very folder, by the newest membership that was applied. */
  isMember({ id, disk }: SimNode): boolean {
    return (
      this.membership === null ||
      this.membership.configuration.members[id]?.incarnation === disk.incarnation
    );
  }

  /** Its folder is still that of a member of the cluster before. */
  isStranger({ disk }: SimNode): boolean {
    return this.reborn !== null && ![null, this.reborn.clusterId].includes(disk.clusterId);
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
    try {
      await this.world.run(this.world.now + ms, () => this.failure !== null || done());
    } catch (error) {
      if (!(error instanceof StandstillError)) throw error;
      this.fail("time", error.message);
    }
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
    if (options.early) world.at(prng.float() * 2_000, () => this.faults.start());
    for (const client of clients) {
      this.asking += 1;
      this.#follow(client.run(), () => (this.asking -= 1));
    }
    for (const worker of workers) {
      this.working += 1;
      this.#follow(worker.run(), () => (this.working -= 1));
    }
    // Two that do not know of each other ask for changes of the membership at once.
    for (let i = prng.chance(0.3) ? 2 : 1; i > 0; i--) {
      this.operating += 1;
      this.#follow(new Operator(this).run(), () => (this.operating -= 1));
    }
    const backup = backUpLater(this);
    if (this.reborn !== null) {
      const { stranger } = this.reborn;
      if (stranger !== null)
        world.at(world.now + streamOf(options.seed, "return").float() * 2_000, () => {
          const node = this.#push(new SimNode(this, stranger.number));
          this.faults.count("return of the old");
          node.haunt(stranger);
          node.start();
        });
      this.asking += 1;
      this.#follow(oldWorkers(this, this.reborn), () => (this.asking -= 1));
    }
    void this.#hand.watch();
    this.#lookEvery(MARK_MS, () => {
      for (const rule of this.watching.marked) rule.marked();
    });
    this.#lookEvery(OFTEN_MS, () => {
      for (const rule of this.watching.often) rule.often();
    });
    if (!options.early) {
      await this.until(FOUNDING_MS, () => this.leader() !== null);
      this.faults.start();
    }
    await this.until(options.faultsMs);
    if (this.failure === null && options.families.has("rescue")) {
      await goOn(this, rescued(this, streamOf(options.seed, "rescue")), this.#next);
      return this.#result();
    }
    if (this.failure === null) {
      this.#heal();
      await checkLiveness(this);
    }
    if (this.failure === null) for (const rule of this.watching.ended) rule.ended();
    if (this.failure === null && backup.taken !== null)
      await goOn(this, restored(this, backup.taken), this.#next);
    return this.#result();
  }

  /** The cluster that begins out of this one's state. */
  readonly #next = (reborn: Reborn, seed: number, override: Partial<SimOptions>): Simulation =>
    new Simulation(seed, { ...this.#run, reborn, override });

  #follow(run: Promise<void>, over: () => void): void {
    run.then(over, (error: unknown) =>
      this.fail("simulator", error instanceof Error ? (error.stack ?? error.message) : "?"),
    );
  }

  #lookEvery(ms: Millis, look: () => void): void {
    this.world.at(this.world.now + ms, () => {
      look();
      this.#lookEvery(ms, look);
    });
  }

  /** A minority is born with a wrong wall clock. */
  #skew(): void {
    const { prng } = this.world;
    const most = Math.floor((this.nodes.length - 1) / 2);
    const wrong = this.nodes.toSorted(() => prng.float() - 0.5).slice(0, prng.between(0, most));
    this.faults.count("skew", wrong.length);
    for (const node of wrong)
      this.setWall(node, prng.pick([-1, 1]) * prng.pick([20_000, 3_600_000]));
    for (const node of this.nodes)
      if (!wrong.includes(node)) this.setWall(node, prng.float() * 200);
  }

  #heal(): void {
    this.faults.stop();
    calm(this.network);
    this.#wild = false;
    rotAtLast(this);
    const core = drawCore(this);
    this.#core = core;
    this.trace.say("sim", `heals ${core.map(({ id }) => id).join(" ")}; the rest is dead`);
    handOverAtLast(this, core);
    for (const node of this.nodes) settle(this, node, core.includes(node));
  }

  #result(): SimResult {
    this.faults.countFrames();
    const { options, faults } = this;
    if (options.families.has("drift")) faults.count("drift");
    if (this.nodes.some(({ replica }) => (replica?.consistencyChecked().rows ?? 0) > 0))
      faults.count("rows compared");
    return {
      seed: this.options.seed,
      failure: this.failure,
      hash: this.trace.hash,
      events: this.world.events + this.sequel.events,
      simulatedMs: this.world.now + this.sequel.simulatedMs,
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
