/**
 * The cluster behind the text traces: a handful of cores, a network that delivers only what it is told to,
 * disks that write only when they are told to. Every command answers with the trace of what it caused.
 */
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import type { RaftOptions } from "../../src/raft/raft.ts";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Configuration,
  type Effects,
  type Entry,
  type Message,
  type NodeId,
} from "../../src/raft/types.ts";
import { Disk, Member } from "./member.ts";

export type Settings = Omit<RaftOptions, "id" | "drawElectionTicks">;

const DEFAULTS: Settings = {
  heartbeatTicks: 3,
  electionTicks: 10,
  stallTicks: 20,
  maxAppendBytes: 1_000_000,
  maxInflightMessages: 8,
  maxInflightBytes: 1_000_000,
  maxUncommittedBytes: 1_000_000,
  maxWritesUnderWay: 4_096,
  maxReadsWaiting: 4_096,
  cacheBytes: 1_000_000,
};

const TURNS_MAX = 200;

export class TraceCluster {
  readonly #lines: string[] = [];
  readonly #members = new Map<NodeId, Member>();
  readonly #down = new Map<NodeId, Member>();
  #network: Message[] = [];
  readonly #drawers = new Map<string, Message[]>();
  readonly #heldDisks = new Set<NodeId>();
  readonly #cut = new Set<string>();
  readonly #timeouts = new Map<NodeId, number>();
  #settings = DEFAULTS;

  // ------------------------------------------------------------------ setting up

  found(voters: readonly NodeId[], learners: readonly NodeId[], settings: Partial<Settings>): void {
    this.#settings = { ...DEFAULTS, ...settings };
    const all = [...voters, ...learners];
    const configuration: Configuration = {
      voters,
      outgoing: [],
      learners,
      learnersNext: [],
      members: Object.fromEntries(all.map((id) => [id, record(id)])),
    };
    const text = new TextDecoder().decode(encodeConfiguration(configuration));
    const entry: Entry = {
      term: asTerm(1),
      index: asIndex(1),
      kind: "bootstrap",
      data: new TextEncoder().encode(`{"configuration":${text}}`),
    };
    for (const id of all) {
      const disk = new Disk();
      disk.write({ hardState: { term: asTerm(1), vote: null }, entries: [entry] });
      this.#begin(id, disk, 1);
    }
    this.#settle();
  }

  /** A member with an empty folder. */
  empty(id: NodeId): void {
    this.#begin(id, new Disk(), 0);
    this.#settle();
  }

  /** Puts a log behind entry 1 (terms by index) and restarts the member on it. */
  plant(id: NodeId, terms: readonly number[], term: number, vote: NodeId | null): void {
    const { disk } = this.#member(id);
    disk.write({
      hardState: { term: asTerm(term), vote },
      entries: terms.map((of, i) => command(i + 2, of)),
    });
    this.#begin(id, disk, 1);
    this.#settle();
  }

  #begin(id: NodeId, disk: Disk, applied: number): void {
    const drawElectionTicks = (): number =>
      this.#timeouts.get(id) ?? this.#settings.electionTicks + 5;
    const options = { id, drawElectionTicks, ...this.#settings };
    this.#members.set(id, new Member(id, options, disk, asIndex(applied)));
  }

  // ------------------------------------------------------------------ what a command may do

  member(id: NodeId): Member {
    return this.#member(id);
  }

  get ids(): readonly NodeId[] {
    return [...this.#members.keys()];
  }

  setTimeout(id: NodeId, ticks: number): void {
    this.#timeouts.set(id, ticks);
  }

  say(line: string): void {
    this.#lines.push(line);
  }

  /** Does something to a core, then prints what it wants done. */
  act(id: NodeId, what: (member: Member) => void): void {
    what(this.#member(id));
    this.#settle();
  }

  tick(ids: readonly NodeId[], count: number): void {
    for (let n = 0; n < count; n++) {
      for (const id of ids) this.#member(id).raft.tick();
      this.#settle();
    }
  }

  /** The disk finishes `count` writes, oldest first. */
  persist(id: NodeId, count: number): void {
    const member = this.#member(id);
    for (let n = 0; n < count && member.writes.length > 0; n++) {
      this.say(`${id} disk: ${describeWrite(member.writes[0]?.op)} is durable`);
      member.persist();
      this.#settle();
    }
  }

  holdDisk(id: NodeId, held: boolean): void {
    if (held) this.#heldDisks.add(id);
    else this.#heldDisks.delete(id);
  }

  partition(sides: readonly (readonly NodeId[])[]): void {
    const sideOf = (id: NodeId): number => sides.findIndex((side) => side.includes(id));
    for (const from of this.ids) {
      for (const to of this.ids) if (sideOf(from) !== sideOf(to)) this.#cut.add(`${from}>${to}`);
    }
  }

  heal(): void {
    this.#cut.clear();
  }

  /** Messages on their way that fit: "n1>n2", "n1>*", "*>n2", with or without a type. */
  take(pattern: string, type: string | null): Message[] {
    const [from = "*", to = "*"] = pattern.split(">");
    const fits = (message: Message): boolean =>
      (from === "*" || message.from === from) &&
      (to === "*" || message.to === to) &&
      (type === null || message.type === type);
    const taken = this.#network.filter(fits);
    this.#network = this.#network.filter((message) => !fits(message));
    return taken;
  }

  putBack(messages: readonly Message[]): void {
    this.#network.push(...messages);
  }

  drawer(name: string): Message[] {
    const drawer = this.#drawers.get(name) ?? [];
    this.#drawers.set(name, drawer);
    return drawer;
  }

  deliver(messages: readonly Message[]): void {
    for (const message of messages) {
      const lost = this.#cut.has(`${message.from}>${message.to}`) || !this.#members.has(message.to);
      this.say(`${message.from} ${lost ? "-x" : "->"} ${message.to} ${describeMessage(message)}`);
      if (lost) continue;
      this.#member(message.to).raft.step(message);
      this.#settle();
    }
  }

  /** Lets disks, network and applies go on until nothing is left to do. */
  stabilize(): void {
    for (let turn = 0; turn < TURNS_MAX; turn++) {
      let busy = false;
      for (const [id, member] of this.#members) {
        if (member.writes.length > 0 && !this.#heldDisks.has(id)) {
          this.persist(id, member.writes.length);
          busy = true;
        }
        while (member.fetches.length > 0) {
          busy = true;
          member.fetch();
          this.#settle();
        }
        this.#apply(member);
      }
      const arriving = this.#network.splice(0);
      if (arriving.length > 0) {
        busy = true;
        this.deliver(arriving);
      }
      if (!busy && !this.#tellCommit()) return;
    }
    throw new Error("does not come to rest");
  }

  /** What the next tick of a leader would tell. False: nothing. */
  #tellCommit(): boolean {
    for (const { raft } of this.#members.values()) raft.tellCommit();
    const before = this.#network.length;
    this.#settle();
    return this.#network.length > before;
  }

  crash(id: NodeId, kept: number): void {
    const member = this.#member(id);
    for (const { op } of member.writes.slice(0, kept)) member.disk.write(op);
    this.#members.delete(id);
    this.#down.set(id, member);
  }

  restart(id: NodeId): void {
    const member = this.#down.get(id);
    if (member === undefined) throw new Error(`${id} is not down`);
    this.#down.delete(id);
    this.#begin(id, member.disk, Math.min(member.applied, member.disk.last));
    this.#settle();
  }

  /** A member restarts and finds its log damaged from `index` on. */
  damage(id: NodeId, index: number): void {
    const member = this.#member(id);
    member.disk.damage(asIndex(index));
    this.#begin(id, member.disk, Math.min(member.applied, member.disk.last));
    this.#settle();
  }

  install(id: NodeId): void {
    const member = this.#member(id);
    const offer = member.installs.pop();
    if (offer === undefined) throw new Error(`${id} was offered no snapshot`);
    this.say(`${id} installed: ${member.install(offer.snapshot)}`);
    this.#settle();
  }

  status(): void {
    for (const [id, { raft, applied }] of this.#members) {
      this.say(
        `${id}: ${raft.role} term=${raft.term} vote=${raft.vote ?? "-"} leader=${raft.leader ?? "-"} last=${raft.lastIndex}@${raft.lastTerm} durable=${raft.durable} commit=${raft.commit} applied=${applied}${raft.repairingTo === null ? "" : ` repairing-to=${raft.repairingTo}`}${raft.diskDistrusted ? " slow-disk" : ""}`,
      );
      for (const [peer, p] of raft.progress())
        this.say(
          `  ${peer}: ${p.state} match=${p.match} next=${p.next} inflight=${p.inflight}${p.recentActive ? "" : " silent"}${raft.configuration.learners.includes(peer) ? " learner" : ""}`,
        );
    }
  }

  log(id: NodeId): void {
    const { raft } = this.#member(id);
    const from = asIndex(raft.compactedIndex + 1);
    const entries = raft.entriesFromCache(from, raft.lastIndex) ?? [];
    this.say(`${id}: ${entries.map(describeEntry).join(" ")}`);
  }

  network(): void {
    for (const message of this.#network)
      this.say(`${message.from} => ${message.to} ${describeMessage(message)}`);
  }

  /** The lines said since the last call. */
  takeTrace(): readonly string[] {
    return this.#lines.splice(0);
  }

  // ------------------------------------------------------------------ inside

  #member(id: NodeId): Member {
    const member = this.#members.get(id);
    if (member === undefined) throw new Error(`there is no member ${id}`);
    return member;
  }

  #settle(): void {
    for (const [id, member] of this.#members) {
      for (const effects of member.pump()) this.#print(id, effects, member);
      this.#network.push(...member.sent.splice(0));
      for (const { id: read, index } of member.reads.splice(0))
        this.say(`${id} read ${read}: ${index === null ? "refused" : `safe at ${index}`}`);
    }
  }

  #apply(member: Member): void {
    const entries = member.apply();
    if (entries.length > 0)
      this.say(`${member.id} applies ${entries.map(describeEntry).join(" ")}`);
    this.#settle();
  }

  #print(id: NodeId, effects: Effects, member: Member): void {
    const { roleChange, persist, configuration, snapshots, fetches, install } = effects;
    if (roleChange !== null) {
      const { role, term, leader } = roleChange;
      const following = role === "follower" && leader !== null ? ` of ${leader}` : "";
      this.say(`${id} is ${role}${following} in term ${term}`);
    }
    if (configuration !== null)
      this.say(`${id} configuration: ${describeConfiguration(configuration)}`);
    if (persist !== null) this.say(`${id} writes ${describeWrite(persist)}`);
    for (const message of effects.messages)
      this.say(`${id} => ${message.to} ${describeMessage(message)}`);
    for (const message of effects.afterPersist) {
      const waits = member.writes.length > 0 ? " (waits for the disk)" : "";
      this.say(`${id} => ${message.to} ${describeMessage(message)}${waits}`);
    }
    for (const { peer, from, to } of fetches) this.say(`${id} fetches ${from}-${to} for ${peer}`);
    for (const peer of snapshots) this.say(`${id} has a snapshot to send to ${peer}`);
    if (install !== null)
      this.say(`${id} is offered a snapshot at ${install.snapshot.index}@${install.snapshot.term}`);
  }
}

export function record(id: NodeId): { url: string; incarnation: string } {
  return { url: `http://${id}`, incarnation: id };
}

function command(index: number, term: number): Entry {
  const data = new TextEncoder().encode(`t${term}`);
  return { term: asTerm(term), index: asIndex(index), kind: "command", data };
}

function describeEntry({ index, term, kind, data }: Entry): string {
  const text = data.length > 20 ? `${data.length} bytes` : new TextDecoder().decode(data);
  return `${index}@${term}${kind === "command" ? `"${text}"` : `:${kind}`}`;
}

function describeWrite(op: Effects["persist"] | undefined): string {
  if (op === null || op === undefined) return "nothing";
  const parts: string[] = [];
  if (op.hardState !== null)
    parts.push(`term=${op.hardState.term} vote=${op.hardState.vote ?? "-"}`);
  parts.push(...op.entries.map(describeEntry));
  return parts.join(" ");
}

function describeConfiguration(configuration: Configuration): string {
  const { voters, outgoing, learners, learnersNext } = configuration;
  const parts = [`voters=(${voters.join(" ")})`];
  if (outgoing.length > 0) parts.push(`outgoing=(${outgoing.join(" ")})`);
  if (learners.length > 0) parts.push(`learners=(${learners.join(" ")})`);
  if (learnersNext.length > 0) parts.push(`learners-next=(${learnersNext.join(" ")})`);
  return parts.join(" ");
}

function describeMessage(message: Message): string {
  const head = `${message.type} term=${message.term}`;
  switch (message.type) {
    case "vote": {
      const flags = `${message.transfer ? " transfer" : ""}${message.leaderLost ? " leader-lost" : ""}`;
      return `${message.pre ? "pre-" : ""}${head} last=${message.lastIndex}@${message.lastTerm}${flags}`;
    }
    case "vote-reply":
      return `${message.pre ? "pre-" : ""}${head} ${message.granted ? "granted" : "refused"}`;
    case "append": {
      const entries =
        message.entries.length === 0 ? "" : ` ${message.entries.map(describeEntry).join(" ")}`;
      return `${head} prev=${message.prevIndex}@${message.prevTerm} commit=${message.commit}${entries}`;
    }
    case "commit":
      return `${head} prev=${message.prevIndex}@${message.prevTerm} commit=${message.commit}`;
    case "append-reply":
      if (message.match !== null) return `${head} prev=${message.prevIndex} match=${message.match}`;
      return message.hint === null
        ? `${head} prev=${message.prevIndex} refused`
        : `${head} prev=${message.prevIndex} refused hint=${message.hint.index}@${message.hint.term}${message.lost === true ? " lost" : ""}`;
    case "heartbeat":
      return `${head} commit=${message.commit} round=${message.round}`;
    case "heartbeat-reply":
      return `${head} round=${message.round}`;
    case "read-index":
      return `${head} id=${message.id}`;
    case "read-index-reply":
      return `${head} id=${message.id} ${message.index === null ? "refused" : `index=${message.index}`}`;
    case "timeout-now":
      return head;
    case "snapshot":
      return `${head} at=${message.snapshot.index}@${message.snapshot.term}`;
    case "snapshot-reply":
      return `${head} at=${message.index} ${message.ok ? "installed" : "failed"}`;
  }
}

export function nodeIds(text: string): NodeId[] {
  return text
    .split(",")
    .filter((id) => id !== "")
    .map(asNodeId);
}
