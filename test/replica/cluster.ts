/** N replicas in virtual time over a counting state machine, for tests of the driver. */
import { asIndex, asNodeId, asTerm, type LogIndex, type NodeId } from "../../src/raft/types.ts";
import type { CommittedEntry, Log, RequestAnswer, StateMachine } from "../../src/replica/ports.ts";
import { Replica } from "../../src/replica/replica.ts";
import { Disk, SimLogStore } from "../sim/disk.ts";
import { Network, type NetworkOptions, SimTransport } from "../sim/network.ts";
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
      for (const { member, boot, below } of entry.acks) this.#below.set(`${member}/${boot}`, below);
      for (const { member, boot, seq, command } of entry.requests) {
        const key = `${member}/${boot}/${seq}`;
        if (seq < (this.#below.get(`${member}/${boot}`) ?? 0)) {
          answers.push({ member, boot, seq, answer: "stale-session" });
          continue;
        }
        if (!this.#answers.has(key)) {
          this.trace.push(JSON.stringify(command));
          this.nows.push(entry.now);
          this.#answers.set(key, this.trace.length);
        }
        answers.push({ member, boot, seq, answer: this.#answers.get(key) });
      }
    }
    return answers;
  }
}

export interface Node {
  readonly id: NodeId;
  readonly disk: Disk;
  replica: Replica | null;
  machine: TraceMachine;
  clock: NodeClock;
  store: SimLogStore | null;
  transport: SimTransport | null;
  fatal: Error | null;
  diskFull: boolean;
}

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} };

export class Cluster {
  readonly world: World;
  readonly network: Network;
  readonly nodes: Node[];
  diskMax = 2;
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
    this.nodes = Array.from({ length: size }, (_, i) => ({
      id: asNodeId(`n${i + 1}`),
      disk: new Disk(asNodeId(`n${i + 1}`), this.world.prng.hex(8)),
      replica: null,
      machine: new TraceMachine(),
      clock: new NodeClock(this.world),
      store: null,
      transport: null,
      fatal: null,
      diskFull: false,
    }));
  }

  node(i: number): Node {
    const node = this.nodes[i];
    if (node === undefined) throw new Error(`no node ${i}`);
    return node;
  }

  async start(node: Node): Promise<void> {
    const offset = node.clock.wallOffset;
    node.clock = new NodeClock(this.world);
    node.clock.wallOffset = offset;
    node.machine = new TraceMachine();
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
      transport: node.transport,
      machine: node.machine,
      machineVersion: 1,
      heartbeatMs: 50,
      electionTimeoutMs: 300,
      advertise: `http://${node.id}`,
      peers: new Map(
        this.nodes.length === 1 ? [] : this.nodes.map(({ id }) => [id, `http://${id}`]),
      ),
      foundingSettings: { test: true },
      diskFull: () => node.diskFull,
      onFatal: (error) => {
        node.fatal = error;
      },
    });
    node.replica.start();
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
