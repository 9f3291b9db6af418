/** N whole members over real task machines in virtual time: for what only shows with both halves together. */
import { Database } from "bun:sqlite";
import { FlotillaQueue } from "../../src/queue/queue.ts";
import { MACHINE_VERSIONS } from "../../src/queue/commands.ts";
import { AUDIT_SLICE, InlineAuditor } from "../../src/queue/auditor.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { POSITION_QUERY } from "../../src/queue/schema.ts";
import { InlineReader } from "../../src/queue/task-reader.ts";
import { DEFAULT_SETTINGS } from "../../src/queue/types.ts";
import { asNodeId, type NodeId } from "../../src/raft/types.ts";
import {
  type CommittedEntry,
  type Log,
  type Millis,
  StateDamage,
  type StateMachine,
} from "../../src/replica/ports.ts";
import { Replica } from "../../src/replica/replica.ts";
import type { MachineVersions } from "../../src/replica/versions.ts";
import { MemorySnapshots } from "../../src/storage/memory-snapshots.ts";
import type { Position } from "../../src/storage/snapshot-messages.ts";
import { Disk } from "../sim/disk.ts";
import { SimLogStore } from "../sim/log-store.ts";
import { Network } from "../sim/network.ts";
import { SimTransport } from "../sim/transport.ts";
import { NodeClock, World } from "../sim/world.ts";
import { newTask } from "../queue/machine-harness.ts";

export class TaskNode {
  readonly disk: Disk;
  db = new Database(":memory:");
  clock: NodeClock;
  versions: MachineVersions = MACHINE_VERSIONS;
  /** What this member makes of an entry before it applies it: a defect. */
  mutate: (entry: CommittedEntry) => CommittedEntry = (entry) => entry;
  replica: Replica | null = null;
  machine: TaskMachine | null = null;
  queue: FlotillaQueue | null = null;
  fatal: Error | null = null;
  /** Outlives the process, as its file does; another state in place of the one that it names ends it. */
  condemned: string | null = null;
  /** Its disk has no room for a copy of the state: it serves no snapshots. */
  roomForCopies = true;
  /** Of a write to its log. */
  diskMs: Millis = 0.2;
  /** What its audit reads at once. */
  slice = AUDIT_SLICE;
  /** Its file cannot be read. */
  isMalformed = false;
  readonly warnings: string[] = [];
  #store: SimLogStore | null = null;
  #transport: SimTransport | null = null;

  constructor(
    readonly cluster: TaskCluster,
    readonly id: NodeId,
  ) {
    this.disk = new Disk(id, cluster.world.prng.hex(8));
    this.clock = new NodeClock(cluster.world);
  }

  async start(): Promise<void> {
    const { world, network, nodes } = this.cluster;
    const { prng: random } = world;
    const clock = new NodeClock(world);
    const log: Log = {
      debug() {},
      info() {},
      warn: (message) => void this.warnings.push(message),
      error: (message) => void this.warnings.push(message),
    };
    this.clock = clock;
    this.fatal = null;
    const machine = TaskMachine.open(this.db, { machineVersions: this.versions });
    this.machine = machine;
    this.#store = new SimLogStore(world, this.disk, clock, () => this.diskMs);
    this.#transport = new SimTransport(network, this.id, clock);
    this.replica = await Replica.open({
      clock,
      random,
      log,
      store: this.#store,
      snapshots: new MemorySnapshots({
        clock,
        log: this.#store,
        nonce: () => random.hex(8),
        image: () => {
          if (!this.roomForCopies) throw new Error("no room");
          return this.db.serialize();
        },
        position: positionOf,
        switchTo: (state, image) => {
          this.disk.currentState = state;
          this.condemned = null;
          this.db = Database.deserialize(image);
        },
        reopen: () => machine.reopen(this.db),
        latencyMs: () => 1,
      }),
      transport: this.#transport,
      machine: this.#mutating(machine),
      auditor: {
        read: (cursor, begun) => {
          if (this.isMalformed) return Promise.reject(new StateDamage("malformed"));
          return new InlineAuditor(() => this.db, this.slice).read(cursor, begun);
        },
      },
      condemned: this.condemned,
      onCondemned: (sentence) => {
        this.condemned = sentence;
      },
      machineVersions: this.versions,
      heartbeatMs: 50,
      electionTimeoutMs: 300,
      advertise: `http://${this.id}`,
      peers: new Map(nodes.length === 1 ? [] : nodes.map(({ id }) => [id, `http://${id}`])),
      foundingSettings: DEFAULT_SETTINGS,
      onFatal: (error) => {
        this.fatal = error;
      },
    });
    this.queue = new FlotillaQueue({
      consensus: this.replica,
      machine,
      reader: new InlineReader(this.db),
      clock,
      log,
      requestTimeoutMs: 5_000,
      contactTimeoutMs: 600,
    });
    this.replica.start();
  }

  kill(): void {
    this.clock.kill();
    this.#store?.kill();
    this.#transport?.kill();
    this.queue?.stop();
    this.replica = null;
    this.queue = null;
  }

  get leads(): boolean {
    return this.replica?.status().role === "leader" && this.replica.status().active;
  }

  #mutating(machine: TaskMachine): StateMachine {
    return {
      applied: () => machine.applied(),
      logTime: () => machine.logTime(),
      machineVersion: () => machine.machineVersion(),
      chainAt: (index) => machine.chainAt(index),
      flush: () => machine.flush(),
      apply: (entries) => machine.apply(entries.map((entry) => this.mutate(entry))),
    };
  }
}

export class TaskCluster {
  readonly world: World;
  readonly network: Network;
  readonly nodes: TaskNode[];
  #submitted = 0;

  constructor(seed: number, size: number) {
    this.world = new World(seed);
    this.network = new Network(this.world, { delayMin: 0.2, delayMax: 2, loss: 0, duplicate: 0 });
    this.nodes = Array.from({ length: size }, (_, i) => new TaskNode(this, asNodeId(`n${i + 1}`)));
  }

  node(i: number): TaskNode {
    const node = this.nodes[i];
    if (node === undefined) throw new Error(`no node ${i}`);
    return node;
  }

  get leader(): TaskNode | null {
    return this.nodes.find((node) => node.leads) ?? null;
  }

  run(ms: number, done?: () => boolean): Promise<boolean> {
    return this.world.run(this.world.now + ms, done);
  }

  async start(nodes: readonly TaskNode[] = this.nodes): Promise<void> {
    for (const node of nodes) await node.start();
    if (!(await this.run(15_000, () => this.leader !== null))) throw new Error("no leader");
  }

  /** @throws when it is not applied within virtual seconds */
  async submit(at: TaskNode): Promise<string> {
    const { queue, clock } = at;
    if (queue === null) throw new Error(`${at.id} is down`);
    const id = this.world.prng.uuid(clock.wall());
    let said: string | null = null;
    this.#submitted += 1;
    queue
      .submit([newTask(id, { payload: `${this.#submitted}` })], {
        principal: "p",
        idempotency: null,
      })
      .then(
        () => {
          said = "ok";
        },
        (error: unknown) => {
          said = error instanceof Error ? error.message : String(error);
        },
      );
    await this.run(10_000, () => said !== null);
    if (said !== "ok") throw new Error(said ?? "no answer");
    return id;
  }
}

function positionOf(image: Uint8Array): Position {
  const db = Database.deserialize(image);
  const position = db.query<Position, []>(POSITION_QUERY).get();
  db.close();
  if (position === null) throw new Error("no state in the image");
  return position;
}
