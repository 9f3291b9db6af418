/**
 * One whole member in virtual time: the real driver, core, task machine, queue and executor pool over
 * simulated ports. It can be killed between any two effects and started again on what its disk kept.
 */
import type { Database } from "bun:sqlite";
import { ExecutorPool } from "../../src/executor/executor-pool.ts";
import { MACHINE_VERSIONS } from "../../src/queue/commands.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { FlotillaQueue } from "../../src/queue/queue.ts";
import { POSITION_QUERY } from "../../src/queue/schema.ts";
import { InlineReader } from "../../src/queue/task-reader.ts";
import { DEFAULT_SETTINGS, type Settings } from "../../src/queue/types.ts";
import {
  asIndex,
  asNodeId,
  type LogIndex,
  type Message,
  type NodeId,
} from "../../src/raft/types.ts";
import type { LogPosition } from "../../src/raft/term-runs.ts";
import type { Leadership } from "../../src/replica/consensus.ts";
import type { Log, Millis } from "../../src/replica/ports.ts";
import { Replica } from "../../src/replica/replica.ts";
import type { MachineVersions } from "../../src/replica/versions.ts";
import { MemorySnapshots } from "../../src/storage/memory-snapshots.ts";
import type { Position } from "../../src/storage/snapshot-messages.ts";
import { openState } from "./database.ts";
import { Disk, logUpTo } from "./disk.ts";
import { Losses } from "./losses.ts";
import { SimLogStore } from "./log-store.ts";
import { SimSlot } from "./executor.ts";
import type { CoreState } from "./invariants/invariant.ts";
import { streamOf } from "./options.ts";
import { SimTransport } from "./transport.ts";
import { diskOf, type Reborn, type Stranger } from "./beginning.ts";
import { isRotten } from "./rot.ts";
import type { Simulation } from "./simulation.ts";
import { watchedAuditor } from "./watched/auditor.ts";
import { watchedConsensus } from "./watched/consensus.ts";
import { watchedLog } from "./watched/log.ts";
import { watchedMachine } from "./watched/machine.ts";
import { watchedQueue } from "./watched/queue.ts";
import { watchedStore } from "./watched/store.ts";
import { watchedTransport } from "./watched/transport.ts";
import { NodeClock, Prng } from "./world.ts";

/** Names that the members' executors handle by name; the star takes what nobody ever named. */
export const POOL_NAMES = ["mail", "resize"] as const;

const NO_VOTES: ReadonlyMap<NodeId, boolean> = new Map();

/** The one before this release, as far as the rules of the task machine go. */
const OLD_BUILD: MachineVersions = {
  oldest: MACHINE_VERSIONS.oldest,
  newest: MACHINE_VERSIONS.newest - 1,
};

/** What a crash does to the state database: the log's own disk keeps what was synced in any case. */
export type StateLoss = "none" | "to-checkpoint" | "all";

export class SimNode {
  readonly id: NodeId;
  disk: Disk;
  readonly #sim: Simulation;
  readonly #prng: Prng;
  readonly #concurrency: number;
  /** `--join`: the member that an empty folder asks to let it in; null at a founder. */
  through: NodeId | null = null;
  /** Its operator has ended it for good. */
  ended = false;
  readonly #losses: Losses;
  /** Outlive the process. */
  wallOffset: Millis = 0;
  rate = 1;
  /** How long its machine stood still, together: its monotonic clock does not know of that. */
  suspendedMs: Millis = 0;
  /** Its disk is almost full, or takes no writes. */
  diskFull = false;
  readOnly = false;
  /** A row of its state rotted, or came rotten with a snapshot; or it was odd. */
  wasRotten = false;
  /** And no other state has taken the place of that one: what it makes of a task may be wrong. */
  isSuspect = false;
  /** Its state came about by an entry that was applied differently; `wasRotten` and `isSuspect` say so as well. */
  isOdd = false;
  /** The snapshot that was installed last took the place of a state that was wrong: it may be older than that was. */
  replacedWrong = false;
  /** Why its state is known to be wrong: outlives the process, until another state takes its place. */
  #condemned: string | null = null;
  #db: Database | null = null;
  #checkpoint: Uint8Array | null = null;
  #image: { readonly index: number; readonly bytes: Uint8Array } | null = null;

  clock: NodeClock;
  store: SimLogStore | null = null;
  transport: SimTransport | null = null;
  machine: TaskMachine | null = null;
  replica: Replica | null = null;
  queue: FlotillaQueue | null = null;
  pool: ExecutorPool | null = null;
  leadership: Leadership | null = null;
  /** Until the process dies of an effect: 0 kills at the next one. */
  #effectsLeft = Number.POSITIVE_INFINITY;
  #starts = 0;
  #inProcess = false;
  /** Up to which index the state was when the process started. */
  startedAt = 0;

  /** Machine versions that its build applies; the next start may bring another build. */
  #build: MachineVersions = MACHINE_VERSIONS;

  /** A state has taken the place of another one, and the machine does not stand on it yet. */
  #isSwitched = false;

  #snapshots: MemorySnapshots | null = null;
  #votes = NO_VOTES;

  constructor(
    sim: Simulation,
    readonly number: number,
  ) {
    this.#sim = sim;
    this.id = asNodeId(`n${number}`);
    this.#prng = new Prng(sim.world.prng.uint32());
    this.#concurrency = sim.options.concurrency[sim.nodes.length] ?? 0;
    this.disk = this.#emptyDisk();
    this.#losses = new Losses(this);
    const { families, seed } = sim.options;
    const isFounder = sim.reborn === null && sim.nodes.length < sim.options.members;
    if (families.has("old-build") && isFounder && streamOf(seed, `build ${number}`).chance(0.7))
      this.#build = OLD_BUILD;
    this.clock = new NodeClock(sim.world);
    this.clock.kill();
  }

  #emptyDisk(): Disk {
    return this.#watched(new Disk(this.id, this.#prng.hex(8)));
  }

  #watched(disk: Disk): Disk {
    const { nodes, watching } = this.#sim;
    disk.truth = (to, term) =>
      logUpTo(
        to,
        term,
        nodes.map((node) => node.disk),
      );
    disk.onWrite = (op) => {
      for (const rule of watching.writing) rule.writing(this, op);
    };
    return disk;
  }

  get up(): boolean {
    return this.clock.alive;
  }

  /** Alive, started, and not standing still. */
  get answers(): boolean {
    return this.queue !== null && this.clock.alive;
  }

  /** It applies no more than the machine version before the newest one. */
  get hasOldBuild(): boolean {
    return this.#build === OLD_BUILD;
  }

  /** Its next start is one of the newest build: for good, since the cluster may not take an older one any more. */
  upgrade(): void {
    if (this.hasOldBuild) this.#sim.trace.say(this.id, "is given the newest build");
    this.#build = MACHINE_VERSIONS;
  }

  get applied(): number {
    return this.machine?.applied().index ?? 0;
  }

  get db(): Database | null {
    return this.#db;
  }

  /** A snapshot takes the place of its log, its state, or both: what its process has in memory is of the ones before. */
  get installs(): boolean {
    return this.disk.installing !== null || this.#isSwitched;
  }

  /** Its state is not that of the others, and it is not known to have been mended. */
  get isWrong(): boolean {
    return this.isOdd || (this.wasRotten && isRotten(this.#db));
  }

  /** Null without a core, and while a snapshot takes the place of its log. */
  get coreState(): CoreState | null {
    const core = this.replica?.core ?? null;
    if (core === null || !this.up) return null;
    const { term, vote, role, leader, commit, lastIndex, lastTerm, electionElapsedTicks } = core;
    const votes = this.#votesOf(core.votes);
    const elapsedTicks = electionElapsedTicks;
    return { term, vote, role, leader, commit, lastIndex, lastTerm, elapsedTicks, votes };
  }

  /** A copy, made only when they changed: a leader keeps those of its election, and hears most messages. */
  #votesOf(votes: ReadonlyMap<NodeId, boolean>): ReadonlyMap<NodeId, boolean> {
    if (!isSame(votes, this.#votes)) this.#votes = new Map(votes);
    return this.#votes;
  }

  // ------------------------------------------------------------------ life

  start(): void {
    const sim = this.#sim;
    if (this.up || this.ended) return;
    const { options, world } = sim;
    const start = ++this.#starts;
    if (start > 1) sim.disturbed();
    this.#effectsLeft = Number.POSITIVE_INFINITY;
    this.clock = new NodeClock(world);
    this.clock.wallOffset = this.wallOffset;
    this.clock.setRate(this.rate);
    const clock = this.clock;
    this.#db ??= openState(undefined, this.#committed);
    const db = this.#db;
    const machineVersions = this.#build;
    const machine = TaskMachine.open(db, {
      writeBehind: sim.options.writeBehind,
      machineVersions,
    });
    const reader = new InlineReader(db);
    this.machine = machine;
    this.startedAt = machine.applied().index;
    this.isOdd = sim.oddChains.isOdd(machine);
    // An old copy of its folder brings a state back that another one had taken the place of.
    this.isSuspect ||= this.isWrong;
    this.store = new SimLogStore(world, this.disk, clock, sim.diskFaults(this));
    this.transport = new SimTransport(sim.network, this.id, clock);
    sim.trace.say(this.id, `starts, boot ${this.disk.boot + 1}, applied ${this.startedAt}`);
    const log = watchedLog(this.id, sim);
    const effect = (): boolean => this.#effect(clock);
    const inside = (run: () => void): void => this.#inside(run);
    const random = this.#prng;
    const store = watchedStore(this.store, this, sim, effect);
    const { disk } = this;
    const snapshots = new MemorySnapshots({
      clock,
      log: store,
      nonce: () => random.hex(8),
      image: () => {
        machine.flush();
        return (this.#db ?? db).serialize();
      },
      position: positionOf,
      switchTo: (state, image) => {
        this.disk.currentState = state;
        // Whoever starts on a wrong state, and has to begin it anew with the log, goes on taking it for wrong: it answers
        // nothing until a snapshot has come, which the log may be beyond by then. The log stays, and is applied from there.
        this.replacedWrong = (this.#condemned ?? this.replica?.condemned() ?? null) !== null;
        this.#condemned = null;
        this.#isSwitched = true;
        this.#db = openState(image, this.#committed);
        this.#checkpoint = image;
      },
      reopen: () => {
        if (this.#db === null) return;
        machine.reopen(this.#db);
        reader.reopen(this.#db);
        this.#isSwitched = false;
        this.startedAt = machine.applied().index;
        sim.trace.say(this.id, `installs a snapshot, applied ${this.startedAt}`);
        this.isOdd = sim.oddChains.isOdd(machine);
        const rotten = this.isOdd || (sim.options.families.has("row-rot") && isRotten(this.#db));
        if (this.wasRotten && !rotten) sim.faults.count("rot repaired");
        this.wasRotten ||= rotten;
        this.isSuspect = rotten;
        for (const rule of sim.watching.installed) rule.installed(this);
      },
      empty: () => openState().serialize(),
      latencyMs: () => random.float() * 5,
    });
    this.#snapshots = snapshots;
    Replica.open({
      clock,
      random,
      log,
      store,
      snapshots,
      transport: watchedTransport(this.transport, this, sim, effect),
      machine: watchedMachine(machine, this, sim, { effect, inside }),
      machineVersions,
      ...(options.audit ? { auditor: watchedAuditor(() => this.#db ?? db, sim) } : {}),
      heartbeatMs: options.heartbeatMs,
      electionTimeoutMs: options.electionTimeoutMs,
      advertise: `http://${this.id}`,
      peers: new Map(
        options.members === 1 || !sim.founders.includes(this.id)
          ? []
          : sim.founders.map((id) => [id, `http://${id}`] as const),
      ),
      join: this.through === null ? null : `http://${this.through}`,
      seen: {
        load: () => disk.seen,
        keep: (seen) => (disk.seen = seen),
      },
      removed: {
        load: (...whose) => (disk.removed?.whose === whose.join() ? disk.removed.sentence : null),
        keep: (cluster, incarnation, sentence) =>
          (disk.removed = { whose: [cluster, incarnation].join(), sentence }),
      },
      onJoinRefused: (sentence) => {
        sim.trace.say(this.id, `may not join: ${sentence}`);
        this.end();
      },
      foundingSettings: {
        ...DEFAULT_SETTINGS,
        lease: options.leaseMs,
        max_crashes: options.maxCrashes,
      } satisfies Settings,
      diskFull: () => this.diskFull,
      condemned: this.#condemned,
      onCondemned: (sentence) => {
        sim.trace.say(this.id, sentence);
        this.#condemned = sentence;
        this.pool?.suspend(sentence);
      },
      limits: options.limits,
      onFatal: (error) => this.#fatal(start, error),
    }).then(
      (replica) => {
        if (start !== this.#starts || !clock.alive) return;
        this.replica = replica;
        this.#compose(replica, machine, reader, clock, log);
      },
      (error: unknown) => this.#fatal(start, error instanceof Error ? error : new Error("?")),
    );
  }

  #compose(
    replica: Replica,
    machine: TaskMachine,
    reader: InlineReader,
    clock: NodeClock,
    log: Log,
  ): void {
    const { options } = this.#sim;
    const random = this.#prng;
    const queue = new FlotillaQueue({
      consensus: watchedConsensus(replica, {
        submitted: (command) => {
          for (const rule of this.#sim.watching.submitted) rule.submitted(this, command);
        },
        answered: (command, answer) => {
          if (!clock.alive) return;
          for (const rule of this.#sim.watching.answered) rule.answered(this, command, answer);
        },
        refused: (command, reason) => {
          if (!clock.alive) return;
          for (const rule of this.#sim.watching.refused) rule.refused(this, command, reason);
        },
        reads: () => {
          // Claims, heartbeats and waits read as well, far more often than clients do; the bound is that of their reads.
          const since = this.#sim.appliedMax;
          return (index) => {
            if (clock.alive && index < since)
              this.#sim.fail(
                "I16",
                `${this.id} serves a read at ${index}, and ${since} was applied before it began`,
              );
          };
        },
      }),
      machine,
      reader,
      clock,
      log,
      requestTimeoutMs: options.requestTimeoutMs,
      contactTimeoutMs: 2 * options.electionTimeoutMs,
    });
    const quick = random.chance(0.3);
    const pool = new ExecutorPool({
      queue: watchedQueue(queue, this.#sim.history, clock),
      member: this.id,
      boot: replica.boot,
      concurrency: this.#concurrency,
      handlers: { kind: "builtin", names: [] },
      ioRoots: [],
      allowNet: [],
      clock,
      log,
      leaseMs: () => machine.settings().lease,
      random: () => random.float(),
      slots: {
        names: [...POOL_NAMES, "*"],
        open: (events) => new SimSlot(clock, random, this.#sim.mood, quick, events),
      },
    });
    this.queue = queue;
    this.pool = pool;
    replica.onInstall(() => {
      queue.recheck();
      pool.recheck((taskId) => machine.leaseOf(taskId));
      if (replica.condemned() === null) pool.resume();
    });
    const condemned = replica.condemned();
    if (condemned !== null) pool.suspend(condemned);
    replica.onLeadership((leadership) => {
      this.leadership = leadership;
      const { role, term, leader, active } = leadership;
      this.#sim.trace.say(
        this.id,
        `${role} in term ${term}, leader ${leader ?? "?"}${active ? ", active" : ""}`,
      );
      for (const rule of this.#sim.watching.leadership) rule.leadership(this, leadership);
      this.#sim.faults.roleChanged(this);
    });
    replica.start();
    if (this.through !== null) replica.joinThrough(this.through);
    void pool
      .load()
      .then((names) => queue.boot(names))
      .then(() => pool.start())
      .catch((error: unknown) => {
        if (clock.alive) this.#sim.fail("boot", `${this.id} could not boot: ${String(error)}`);
      });
    for (const rule of this.#sim.watching.started) rule.started(this);
  }

  /** kill -9, or a loss of power: the log keeps what was synced, and perhaps some of what was not. */
  kill(loss: StateLoss): void {
    if (!this.up) return;
    this.#sim.trace.say(this.id, `dies, state lost: ${loss}`);
    this.#die();
    switch (loss) {
      case "none":
        return;
      case "to-checkpoint":
        this.#db = this.#checkpoint === null ? null : openState(this.#checkpoint, this.#committed);
        return;
      case "all":
        // Built anew from the log, where that is whole; else the state is all there is of its beginning, and
        // without it the member would have to be added anew.
        if (this.disk.compacted.index > 0 || this.disk.installing !== null) {
          this.#db =
            this.#checkpoint === null ? null : openState(this.#checkpoint, this.#committed);
          return;
        }
        this.#db = null;
        this.#checkpoint = null;
        this.#condemned = null;
        return;
    }
  }

  /** Its operator ends it, and does not start it again. */
  end(): void {
    this.ended = true;
    this.kill("none");
  }

  /** The folder is empty from now on: another incarnation. */
  wipe(): void {
    this.kill("none");
    this.upgrade();
    this.disk = this.#emptyDisk();
    this.#db = null;
    this.#checkpoint = null;
    this.#condemned = null;
    this.#image = null;
    this.#losses.wiped();
    this.ended = false;
    this.readOnly = false;
  }

  /** The disk that it finds at its next start has lost its log from this entry on. */
  rot(from: LogIndex): void {
    this.#sim.trace.say(this.id, `finds its log damaged at ${from} of ${this.disk.entries.length}`);
    this.#losses.damaged(from);
  }

  /** `leader` hears from this member that what it acknowledged is lost. */
  tells(leader: SimNode, answer: Extract<Message, { readonly type: "append-reply" }>): void {
    this.#losses.tells(leader, answer);
  }

  hasTold(leader: SimNode): boolean {
    return this.#losses.hasTold(leader);
  }

  get owes(): LogPosition | null {
    return this.#losses.owes;
  }

  get rolledBack(): boolean {
    return this.#losses.rolledBack;
  }

  get hasForgottenStarts(): boolean {
    return this.#losses.hasForgottenStarts;
  }

  get copyMayReturn(): boolean {
    return this.#losses.copyMayReturn;
  }

  /** Copies the folder. False: not in the middle of an install. */
  keepCopy(): boolean {
    if (this.#db === null || this.disk.installing !== null) return false;
    if (this.disk.damagedFrom !== null) return false;
    if (this.up) this.machine?.flush();
    this.#losses.keeps(this.#emptyDisk(), this.#db);
    const { entries, compacted } = this.disk;
    return this.applied <= entries.length && this.applied >= compacted.index;
  }

  putCopyBack(): void {
    const { copy } = this.#losses;
    if (copy === null) return;
    this.kill("none");
    const { disk, state } = copy;
    this.#sim.trace.say(this.id, `gets a copy of its folder that ends at ${disk.entries.length}`);
    this.#losses.goesBack();
    this.disk = disk;
    this.#db = openState(state, this.#committed);
    this.#checkpoint = state;
    this.start();
  }

  #die(): void {
    this.#sim.disturbed();
    this.clock.kill();
    this.store?.kill();
    this.transport?.kill();
    this.store = null;
    this.transport = null;
    this.machine = null;
    this.replica = null;
    this.queue = null;
    this.pool = null;
    this.leadership = null;
    this.#isSwitched = false;
    // What the process had not committed is in nobody's file.
    if (this.#db?.inTransaction === true) this.#db.run("ROLLBACK");
  }

  /** The process dies by itself after so many more effects, in the middle of whatever it does then. */
  killAfterEffects(count: number): void {
    this.#effectsLeft = count;
  }

  /** Keeps the state database as it is now, as a checkpoint that a loss of power goes back to. */
  checkpoint(): void {
    if (this.#db === null || !this.up) return;
    this.machine?.flush();
    this.#checkpoint = this.#db.serialize();
    if (!this.wasRotten) this.#image = { index: this.applied, bytes: this.#checkpoint };
  }

  /** A copy of the state, with all that was applied when it began. Null: the process has no state to copy. */
  async backUp(): Promise<Uint8Array | null> {
    const snapshots = this.#snapshots;
    if (snapshots === null) return null;
    const { id, bytes } = await snapshots.create();
    const { data } = await snapshots.read(id, 0, bytes);
    await snapshots.remove(id);
    return data;
  }

  /** It has the folder that it had in another cluster. */
  haunt({ disk, state }: Stranger): void {
    this.disk = this.#watched(disk);
    this.#db = openState(state, this.#committed);
    this.#checkpoint = state;
  }

  /** Its folder is the beginning of a new cluster. */
  begin(reborn: Reborn): void {
    this.disk.incarnation = reborn.incarnation;
    diskOf(reborn, this.disk);
    this.#db = openState(reborn.state, this.#committed);
    this.#checkpoint = reborn.state;
    this.#image = { index: reborn.beginning.index, bytes: reborn.state };
  }

  /** A state as it was once, for those who want to go on from there. */
  get image(): { readonly index: number; readonly bytes: Uint8Array } | null {
    return this.#image;
  }

  /** Forgets the log up to `index`, once the state holds that much durably. False: there is nothing to forget. */
  compact(index: number): boolean {
    const { replica, clock } = this;
    if (replica === null || index <= this.disk.compacted.index) return false;
    this.checkpoint();
    clock.enter(() => {
      replica.compact(asIndex(index)).then(
        (to) => this.#sim.trace.say(this.id, `its log begins behind ${to}`),
        (error: unknown) =>
          this.#sim.fail("compaction", `${this.id} cannot compact: ${String(error)}`),
      );
    });
    return true;
  }

  #fatal(start: number, error: Error): void {
    if (start !== this.#starts || !this.clock.alive) return;
    if (this.rolledBack) {
      this.#sim.trace.say(this.id, `stops: ${error.message}`);
      this.end();
      return;
    }
    if (this.disk.voteLost) {
      this.#sim.trace.say(this.id, `refuses to start: ${error.message}`);
      this.end();
      return;
    }
    const injected = error.message.includes("(injected)");
    if (!injected) {
      this.#sim.fail("fatal", `${this.id} stops: ${error.stack ?? error.message}`);
      return;
    }
    this.#sim.trace.say(this.id, error.message);
    this.#sim.crashed(this, "none");
  }

  /** A transaction of the state is over. What others make the machine commit is no effect of the process. */
  readonly #committed = (): void => {
    if (this.#inProcess && !this.#effect(this.clock)) throw new Error("killed (injected)");
  };

  /**
   * Runs what may commit as a part of the process. Not an apply: what it commits would be in the state before anybody
   * was told what it did.
   */
  #inside<T>(run: () => T): T {
    this.#inProcess = true;
    try {
      return run();
    } finally {
      this.#inProcess = false;
    }
  }

  /** False: the process is dead, this effect does not happen. */
  #effect(clock: NodeClock): boolean {
    if (!clock.alive) return false;
    this.#effectsLeft -= 1;
    if (this.#effectsLeft >= 0) return true;
    this.#sim.trace.say(this.id, "dies between two effects");
    // The machine keeps answering what this event still asks; nothing that it does leaves the process.
    clock.kill();
    const store = this.store;
    const transport = this.transport;
    store?.kill();
    transport?.kill();
    this.#sim.diedAtEffect(this, () => {
      if (this.clock === clock) this.#die();
    });
    return false;
  }
}

function isSame(a: ReadonlyMap<NodeId, boolean>, b: ReadonlyMap<NodeId, boolean>): boolean {
  if (a.size !== b.size) return false;
  for (const [id, granted] of a) if (b.get(id) !== granted) return false;
  return true;
}

function positionOf(image: Uint8Array): Position {
  const db = openState(image);
  try {
    const row = db.query<Position, []>(POSITION_QUERY).get();
    if (row === null) throw new Error("the image has no state row");
    return row;
  } finally {
    db.close();
  }
}
