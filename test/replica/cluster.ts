/** N replicas in virtual time over a counting state machine, for tests of the driver. */
import { asIndex, asNodeId, asTerm, type LogIndex, type NodeId } from "../../src/raft/types.ts";
import type { CommittedEntry, Log, RequestAnswer, StateMachine } from "../../src/replica/ports.ts";
import { Replica } from "../../src/replica/replica.ts";
import { MemorySnapshots } from "../../src/storage/memory-snapshots.ts";
import { Disk, logUpTo } from "../sim/disk.ts";
import { SimLogStore } from "../sim/log-store.ts";
import { Network, type NetworkOptions } from "../sim/network.ts";
import { SimTransport } from "../sim/transport.ts";
import { NodeClock, World } from "../sim/world.ts";

/** Remembers every command in order, and answers repeats from memory: T2 at its simplest. */
export class TraceMachine implements StateMachine {
  readonly trace: string[] = [];
  readonly nows: number[] = [];
  #applied = { index: asIndex(0), term: asTerm(0) };
  #logTime = 0;
  readonly #answers = new Map<string, unknown>();
  readonly #below = new Map<string, number>();

  applied(): { index: LogIndex; term: ReturnType<typeof asTerm> } {
    return this.#applied;
  }

  logTime(): number {
    return this.#logTime;
  }

  machineVersion(): number {
    return 1;
  }

  chainAt(): null {
    return null;
  }

  /** All of it as bytes. */
  image(): Uint8Array {
    const { trace, nows } = this;
    return new TextEncoder().encode(
      JSON.stringify({
        trace,
        nows,
        applied: this.#applied,
        logTime: this.#logTime,
        answers: [...this.#answers],
        below: [...this.#below],
      }),
    );
  }

  /** Becomes what `image` was. */
  restore(image: Uint8Array): void {
    const state = parseImage(image);
    this.trace.splice(0, Number.POSITIVE_INFINITY, ...state.trace);
    this.nows.splice(0, Number.POSITIVE_INFINITY, ...state.nows);
    this.#applied = { index: asIndex(state.applied.index), term: asTerm(state.applied.term) };
    this.#logTime = state.logTime;
    this.#answers.clear();
    for (const [key, answer] of state.answers) this.#answers.set(key, answer);
    this.#below.clear();
    for (const [key, below] of state.below) this.#below.set(key, below);
  }

  /** Applied index at each flush. */
  readonly flushes: number[] = [];

  flush(): void {
    this.flushes.push(this.#applied.index);
  }

  apply(entries: readonly CommittedEntry[]): readonly RequestAnswer[] {
    const answers: RequestAnswer[] = [];
    for (const entry of entries) {
      if (entry.index !== this.#applied.index + 1)
        throw new Error(`applied ${entry.index} after ${this.#applied.index}`);
      this.#applied = { index: entry.index, term: entry.term };
      if (entry.now > 0) {
        if (entry.now < this.#logTime) throw new Error("log time went back");
        this.#logTime = entry.now;
      }
      for (const key of this.#answers.keys())
        if (entry.members?.includes(asNodeId(key.slice(0, key.indexOf("/")))) === false)
          this.#answers.delete(key);
      for (const { member, boot, below } of entry.acks) this.#below.set(`${member}/${boot}`, below);
      for (const { member, boot, seq, command } of entry.requests) {
        const key = `${member}/${boot}/${seq}`;
        if (seq < (this.#below.get(`${member}/${boot}`) ?? 0)) {
          answers.push({ member, boot, seq, answer: "stale-session" });
          continue;
        }
        if (!this.#answers.has(key)) {
          this.trace.push(new TextDecoder().decode(command));
          this.nows.push(entry.now);
          this.#answers.set(key, this.trace.length);
        }
        answers.push({ member, boot, seq, answer: this.#answers.get(key) });
      }
    }
    return answers;
  }
}

/** A command for {@link TraceMachine}: JSON. */
export const commandOf = (command: unknown): Uint8Array =>
  new TextEncoder().encode(JSON.stringify(command));

interface Image {
  readonly trace: readonly string[];
  readonly nows: readonly number[];
  readonly applied: { readonly index: number; readonly term: number };
  readonly logTime: number;
  readonly answers: readonly (readonly [string, unknown])[];
  readonly below: readonly (readonly [string, number])[];
}

function parseImage(image: Uint8Array): Image {
  return JSON.parse(new TextDecoder().decode(image)) as Image;
}

export interface Node {
  readonly id: NodeId;
  /** What a start takes up of the state: null, it is built from the log. */
  image: Uint8Array | null;
  readonly disk: Disk;
  replica: Replica | null;
  machine: TraceMachine;
  clock: NodeClock;
  store: SimLogStore | null;
  transport: SimTransport | null;
  fatal: Error | null;
  diskFull: boolean;
  /** What the next start finds wrong with its state. */
  stateDamage?: string | null;
  /** Its `--advertise`, if it is another than http://ID. */
  url?: string;
  joinRefused?: string;
  /** What its disk keeps of how far it saw the others. */
  seen: unknown;
  /** The file `REMOVED`. */
  removed: { readonly whose: string; readonly sentence: string } | null;
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };

export class Cluster {
  readonly world: World;
  readonly network: Network;
  readonly nodes: Node[];
  diskMax = 2;
  readonly #founders: readonly NodeId[];
  log: Log =
    process.env.SIM_LOG === undefined
      ? silent
      : { ...silent, info: (m, f) => console.log(m, f), error: (m, f) => console.log(m, f) };

  constructor(seed: number, size: number, network: Partial<NetworkOptions> = {}) {
    this.world = new World(seed);
    this.network = new Network(this.world, {
      delayMin: 0.2,
      delayMax: 2,
      loss: 0,
      duplicate: 0,
      ...network,
    });
    this.nodes = [];
    for (let i = 1; i <= size; i++) this.add(`n${i}`);
    this.#founders = this.nodes.map(({ id }) => id);
  }

  /** Keeps the state of `node` durably and forgets its log up to there, or up to where its replica still needs it. */
  async compact(node: Node): Promise<number> {
    node.image = node.machine.image();
    const compacted = node.replica?.compact(node.machine.applied().index);
    let done = -1;
    void compacted?.then((index) => {
      done = index;
    });
    await this.run(2_000, () => done >= 0);
    return done;
  }

  node(i: number): Node {
    const node = this.nodes[i];
    if (node === undefined) throw new Error(`no node ${i}`);
    return node;
  }

  /** A member with an empty folder; those that come after the construction are none of the founders. */
  add(id: string): Node {
    const disk = new Disk(asNodeId(id), this.world.prng.hex(8));
    disk.truth = (to, term) =>
      logUpTo(
        to,
        term,
        this.nodes.map((node) => node.disk),
      );
    const node: Node = {
      id: asNodeId(id),
      image: null,
      disk,
      replica: null,
      machine: new TraceMachine(),
      clock: new NodeClock(this.world),
      store: null,
      transport: null,
      fatal: null,
      diskFull: false,
      seen: null,
      removed: null,
    };
    this.nodes.push(node);
    return node;
  }

  /** An empty folder in place of the one that was there. */
  wipe(node: Node): void {
    const { truth } = node.disk;
    Object.assign(node.disk, new Disk(node.id, this.world.prng.hex(8)), { truth });
    node.image = null;
    node.seen = null;
    node.removed = null;
  }

  /** `through`: `--join`, at the address of this member. */
  async start(node: Node, through: Node | null = null): Promise<void> {
    const offset = node.clock.wallOffset;
    node.clock = new NodeClock(this.world);
    node.clock.wallOffset = offset;
    const machine = new TraceMachine();
    if (node.image !== null) machine.restore(node.image);
    node.machine = machine;
    node.store = new SimLogStore(
      this.world,
      node.disk,
      node.clock,
      () => 0.1 + this.world.prng.float() * this.diskMax,
    );
    node.transport = new SimTransport(this.network, node.id);
    node.replica = await Replica.open({
      clock: node.clock,
      random: this.world.prng,
      log: this.log,
      store: node.store,
      snapshots: new MemorySnapshots({
        clock: node.clock,
        log: node.store,
        nonce: () => this.world.prng.hex(8),
        image: () => machine.image(),
        empty: () => new TraceMachine().image(),
        position: (image) => ({ ...parseImage(image).applied, machineVersion: 1 }),
        switchTo: (state, image) => {
          node.disk.currentState = state;
          node.image = image;
        },
        reopen: () => {
          if (node.image !== null) machine.restore(node.image);
        },
        latencyMs: () => this.world.prng.float(),
      }),
      transport: node.transport,
      machine,
      machineVersions: { oldest: 1, newest: 1 },
      heartbeatMs: 50,
      electionTimeoutMs: 300,
      advertise: node.url ?? `http://${node.id}`,
      peers: new Map(
        this.#founders.length === 1 || !this.#founders.includes(node.id)
          ? []
          : this.#founders.map((id) => [id, `http://${id}`]),
      ),
      removed: {
        load: (...whose) => (node.removed?.whose === whose.join() ? node.removed.sentence : null),
        keep: (cluster, incarnation, sentence) =>
          (node.removed = { whose: [cluster, incarnation].join(), sentence }),
      },
      seen: { load: () => node.seen, keep: (seen) => (node.seen = seen) },
      join: through === null ? null : `http://${through.id}`,
      onJoinRefused: (sentence) => {
        node.joinRefused = sentence;
      },
      foundingSettings: { test: true },
      diskFull: () => node.diskFull,
      stateDamage: node.stateDamage ?? null,
      onFatal: (error) => {
        node.fatal = error;
      },
    });
    node.replica.start();
    if (through !== null) node.replica.joinThrough(through.id);
  }

  kill(node: Node): void {
    node.clock.kill();
    node.store?.kill();
    node.transport?.kill();
    node.replica = null;
  }

  async startAll(): Promise<void> {
    for (const node of this.nodes) await this.start(node);
    if (!(await this.world.run(this.world.now + 10_000, () => this.leader() !== null)))
      throw new Error("no leader");
  }

  leader(): Node | null {
    return (
      this.nodes.find(
        ({ replica }) => replica?.status().role === "leader" && replica.status().active,
      ) ?? null
    );
  }

  run(ms: number, done?: () => boolean): Promise<boolean> {
    return this.world.run(this.world.now + ms, done);
  }

  check(): void {
    for (const { id, fatal } of this.nodes)
      if (fatal !== null) throw new Error(`${id}: ${fatal.stack}`);
    const longest = this.nodes
      .map(({ machine }) => machine.trace)
      .reduce((a, b) => (a.length >= b.length ? a : b));
    for (const { id, machine } of this.nodes) {
      const prefix = longest.slice(0, machine.trace.length);
      if (machine.trace.join() !== prefix.join()) throw new Error(`${id} applied something else`);
    }
  }
}
