/**
 * A cluster of cores under faults drawn from a seed: messages lost, doubled and reordered, partitions,
 * disks that lag, crashes that keep a prefix of what was being written, logs that are damaged at a restart, compaction,
 * changes of membership, transfers. After every step the invariants are checked; at the end everything is healed and
 * the cluster must make progress.
 */
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import { hasQuorum, isVoter } from "../../src/raft/quorum.ts";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Configuration,
  type ConfigurationChange,
  type Entry,
  type LogIndex,
  type Message,
  type NodeId,
  type Term,
} from "../../src/raft/types.ts";
import { Disk, Member } from "./member.ts";
import { Prng } from "./prng.ts";

const ELECTION_TICKS = 10;
const NETWORK_MESSAGES_MAX = 2_000;

interface Read {
  readonly id: number;
  /** Highest index known to be committed anywhere when it began. */
  readonly floor: number;
}

export class RandomCluster {
  readonly #prng: Prng;
  readonly #members = new Map<NodeId, Member>();
  readonly #down = new Map<NodeId, Disk>();
  readonly #network: Message[] = [];
  /** Pairs "from>to" whose messages are lost. */
  readonly #cut = new Set<string>();
  readonly #loss: number;
  readonly #duplicates: number;
  readonly #faults: {
    crash: boolean;
    membership: boolean;
    compaction: boolean;
    transfer: boolean;
    damage: boolean;
  };
  #nextRead = 1;
  readonly #reads = new Map<string, Read>();

  // What the checks remember over the whole run.
  readonly #leaderOf = new Map<Term, NodeId>();
  readonly #committed = new Map<number, Term>();
  /** The term in which an index was first seen committed: leaders of later terms must have it (I5). */
  readonly #committedIn = new Map<number, Term>();
  #highestCommit = 1;
  readonly #knownCommit = new Map<NodeId, number>();
  readonly #led = new Map<string, { last: LogIndex; lastTerm: Term }>();
  readonly #disks = new Map<NodeId, { term: Term; vote: NodeId | null }>();
  readonly counts = {
    elections: 0,
    commits: 0,
    snapshots: 0,
    reads: 0,
    changes: 0,
    crashes: 0,
    damages: 0,
  };

  constructor(seed: number) {
    this.#prng = new Prng(seed);
    const p = this.#prng;
    this.#loss = p.chance(0.5) ? p.between(0, 25) / 100 : 0;
    this.#duplicates = p.chance(0.5) ? p.between(0, 30) / 100 : 0;
    this.#faults = {
      crash: p.chance(0.6),
      membership: p.chance(0.5),
      compaction: p.chance(0.5),
      transfer: p.chance(0.5),
      damage: p.chance(0.4),
    };
    const voters = ["n1", "n2", "n3", "n4", "n5"].slice(0, p.between(3, 5)).map(asNodeId);
    const configuration: Configuration = {
      voters,
      outgoing: [],
      learners: [],
      learnersNext: [],
      members: Object.fromEntries(
        voters.map((id) => [id, { url: `http://${id}`, incarnation: id }]),
      ),
    };
    const text = new TextDecoder().decode(encodeConfiguration(configuration));
    const bootstrap: Entry = {
      term: asTerm(1),
      index: asIndex(1),
      kind: "bootstrap",
      data: new TextEncoder().encode(`{"configuration":${text}}`),
    };
    this.#committed.set(1, asTerm(1));
    for (const id of voters) {
      const disk = new Disk();
      disk.write({ hardState: { term: asTerm(1), vote: null }, entries: [bootstrap] });
      this.#start(id, disk, asIndex(1));
    }
    if (this.#faults.membership) this.#start(asNodeId("n6"), new Disk(), asIndex(0));
  }

  #start(id: NodeId, disk: Disk, applied: LogIndex): void {
    const p = this.#prng;
    const member = new Member(
      id,
      {
        id,
        heartbeatTicks: 2,
        electionTicks: ELECTION_TICKS,
        stallTicks: 2 * ELECTION_TICKS,
        drawElectionTicks: () => p.between(ELECTION_TICKS, 2 * ELECTION_TICKS - 1),
        maxAppendBytes: 400,
        maxInflightMessages: 3,
        maxInflightBytes: 1_000,
        maxUncommittedBytes: 2_000,
        maxWritesUnderWay: 4_096,
        maxReadsWaiting: 4_096,
        cacheBytes: 600,
      },
      disk,
      applied,
      p.between(0, 5),
    );
    this.#members.set(id, member);
    this.#knownCommit.set(id, 0);
  }

  // ------------------------------------------------------------------ faults and events

  /** One event, drawn; then every member's effects; then the checks. */
  step(): void {
    const p = this.#prng;
    const member = p.pick([...this.#members.values()]);
    const roll = p.between(0, 999);
    if (roll < 550) for (let n = p.between(1, 4); n > 0; n--) this.#deliver();
    else if (roll < 700) for (const each of this.#members.values()) each.raft.tick();
    else if (roll < 740) member.raft.tick();
    else if (roll < 880) for (let n = p.between(1, 3); n > 0; n--) this.#persist(member);
    else if (roll < 930) this.#propose();
    else if (roll < 945) this.#read(member);
    else if (roll < 955) member.fetch();
    else if (roll < 960) this.#partition();
    else if (roll < 970) this.#cut.clear();
    else if (roll < 976) member.raft.leaderLost();
    else if (roll < 979) member.raft.campaign();
    else if (roll < 984) this.#crash(member);
    else if (roll < 988) this.#restart();
    else if (roll < 991) this.#transfer(member);
    else if (roll < 995) this.#change();
    else if (roll < 998) this.#compact(member);
    else this.#install(member);
    this.#settle();
  }

  #settle(): void {
    for (const member of this.#members.values()) {
      this.#pump(member);
      this.#check(member);
      if (this.#prng.chance(0.7)) this.#apply(member);
      this.#collect(member);
    }
  }

  /** A promise is checked when it leaves: a later write may take back what this one put on the disk. */
  #persist(member: Member): boolean {
    const before = member.sent.length;
    const wrote = member.persist();
    for (const message of member.sent.slice(before)) this.#checkPromise(member, message);
    return wrote;
  }

  #pump(member: Member): void {
    const before = member.sent.length;
    member.pump();
    for (const message of member.sent.slice(before)) this.#checkPromise(member, message);
  }

  #collect(member: Member): void {
    for (const message of member.sent.splice(0)) {
      if (this.#cut.has(`${message.from}>${message.to}`) || this.#prng.chance(this.#loss)) continue;
      this.#network.push(message);
      if (this.#prng.chance(this.#duplicates)) this.#network.push(message);
    }
    while (this.#network.length > NETWORK_MESSAGES_MAX) this.#network.shift();
    for (const { id, index } of member.reads.splice(0)) {
      const read = this.#reads.get(`${member.id}:${id}`);
      if (read === undefined) throw new Error(`read ${id} is answered twice on ${member.id}`);
      this.#reads.delete(`${member.id}:${id}`);
      if (index === null) continue;
      this.counts.reads += 1;
      if (index < read.floor)
        throw new Error(`stale read on ${member.id}: index ${index}, committed was ${read.floor}`);
    }
  }

  #deliver(): void {
    if (this.#network.length === 0) return;
    // Mostly in order, sometimes any: a late message of long ago is among them.
    const at = this.#prng.chance(0.6) ? 0 : this.#prng.between(0, this.#network.length - 1);
    const [message] = this.#network.splice(at, 1);
    if (message !== undefined) this.#members.get(message.to)?.raft.step(message);
  }

  #leader(): Member | null {
    const leaders = [...this.#members.values()].filter(({ raft }) => raft.role === "leader");
    return leaders.length === 0 ? null : this.#prng.pick(leaders);
  }

  #propose(): void {
    const items = Array.from({ length: this.#prng.between(1, 3) }, () => ({
      kind: "command" as const,
      data: new Uint8Array(this.#prng.between(0, 300)),
    }));
    this.#leader()?.raft.propose(items);
  }

  #read(member: Member): void {
    const id = this.#nextRead++;
    this.#reads.set(`${member.id}:${id}`, { id, floor: this.#highestCommit });
    member.raft.readIndex(id);
  }

  #partition(): void {
    const ids = [...this.#members.keys()];
    const side = new Set(ids.filter(() => this.#prng.chance(0.5)));
    const oneWay = this.#prng.chance(0.3);
    for (const from of ids) {
      for (const to of ids) {
        if (side.has(from) && !side.has(to)) this.#cut.add(`${from}>${to}`);
        if (!oneWay && !side.has(from) && side.has(to)) this.#cut.add(`${from}>${to}`);
      }
    }
  }

  /** A prefix of the writes under way reached the disk; nothing was acknowledged for them. */
  #crash(member: Member): void {
    if (!this.#faults.crash || this.#members.size <= 2) return;
    const keep = this.#prng.between(0, member.writes.length);
    for (const { op } of member.writes.slice(0, keep)) member.disk.write(op);
    this.#members.delete(member.id);
    this.#down.set(member.id, member.disk);
    for (const key of this.#reads.keys())
      if (key.startsWith(`${member.id}:`)) this.#reads.delete(key);
    this.counts.crashes += 1;
    this.#damage(member.disk);
  }

  /** One at a time: two of three could not elect anybody, and would be right. */
  #damage(disk: Disk): void {
    if (!this.#faults.damage || !this.#prng.chance(0.4)) return;
    const owing = [...this.#down.values(), ...[...this.#members.values()].map((each) => each.disk)];
    if (owing.some(({ promised, last }) => promised !== null && promised.index > last)) return;
    const first = disk.compacted.index + 1;
    if (disk.last <= first) return;
    disk.damage(asIndex(this.#prng.between(Math.max(2, first), disk.last)));
    this.counts.damages += 1;
  }

  #restart(): void {
    const down = [...this.#down];
    if (down.length === 0) return;
    const [id, disk] = this.#prng.pick(down);
    this.#down.delete(id);
    // The state database may lag behind what was applied, but never behind what was compacted.
    this.#start(id, disk, disk.compacted.index);
  }

  #transfer(member: Member): void {
    if (this.#faults.transfer) this.#leader()?.raft.transfer(member.id);
  }

  #change(): void {
    const leader = this.#leader();
    if (!this.#faults.membership || leader === null) return;
    const { voters, learners } = leader.raft.configuration;
    const known = new Set<string>([...voters, ...learners]);
    const changes: ConfigurationChange[] = [];
    for (const id of ["n1", "n2", "n3", "n4", "n5", "n6"].map(asNodeId)) {
      if (!this.#prng.chance(0.3)) continue;
      const exists = this.#members.has(id) || this.#down.has(id);
      if (!known.has(id)) {
        // An identity that voted before comes back with its data: the same incarnation.
        if (exists)
          changes.push({ op: "add-learner", id, record: { url: `http://${id}`, incarnation: id } });
      } else if (learners.includes(id)) {
        changes.push({ op: this.#prng.chance(0.7) ? "promote" : "remove", id });
      } else if (voters.length > 2) {
        changes.push({ op: this.#prng.chance(0.5) ? "remove" : "demote", id });
      }
    }
    if (changes.length > 0 && leader.raft.proposeChange(changes).ok) this.counts.changes += 1;
  }

  #compact(member: Member): void {
    if (!this.#faults.compaction || member.applied <= member.disk.compacted.index) return;
    member.compact(asIndex(this.#prng.between(member.disk.compacted.index + 1, member.applied)));
  }

  #install(member: Member): void {
    const offer = member.installs.pop();
    member.installs = [];
    if (offer === undefined) return;
    const from = this.#members.get(offer.from);
    const snapshot =
      from === undefined || this.#prng.chance(0.3) ? offer.snapshot : from.snapshot();
    if (snapshot === null || snapshot.index < offer.snapshot.index) return;
    if (!member.install(snapshot)) return;
    this.counts.snapshots += 1;
  }

  // ------------------------------------------------------------------ invariants

  #apply(member: Member): void {
    for (const { index, term } of member.apply()) {
      if (this.#committed.get(index) !== term)
        throw new Error(`${member.id} applied ${index}@${term}, committed is another`);
      if (member.disk.termAt(index) !== term)
        throw new Error(`${member.id} applied ${index}@${term}, which is not on its disk`);
    }
  }

  /** I3: what leaves as a promise is on the disk. */
  #checkPromise({ id, disk }: Member, message: Message): void {
    if (message.type === "vote-reply" && !message.pre && message.granted) {
      const { term, vote } = disk.hardState;
      const kept = term > message.term || (term === message.term && vote === message.to);
      if (!kept)
        throw new Error(`${id} granted a vote in term ${message.term} that is not on disk`);
    }
    if (message.type === "append-reply" && message.match !== null && disk.last < message.match) {
      throw new Error(`${id} acknowledged ${message.match}, its disk ends at ${disk.last}`);
    }
  }

  #check(member: Member): void {
    const { id, raft, disk } = member;
    if (raft.role === "leader") this.#checkLeader(member);
    // By a configuration that is not committed it may still be needed (dissertation 4.2.2).
    const settled = raft.configurationIndex <= raft.commit;
    if (raft.role.endsWith("candidate") && settled && !isVoter(raft.configuration, id))
      throw new Error(`${id} campaigns and is no voter`);
    const before = this.#disks.get(id);
    const { term, vote } = disk.hardState;
    if (
      before !== undefined &&
      (term < before.term || (term === before.term && before.vote !== null && vote !== before.vote))
    )
      throw new Error(`${id} changed its vote: ${before.term}/${before.vote} to ${term}/${vote}`);
    this.#disks.set(id, disk.hardState);
    this.#checkCommit(member);
    for (const peer of raft.progress().values()) {
      if (peer.inflight > 3) throw new Error(`${id} has ${peer.inflight} appends in flight`);
    }
  }

  #checkLeader({ id, raft }: Member): void {
    const other = this.#leaderOf.get(raft.term);
    if (other === undefined) {
      this.#leaderOf.set(raft.term, id);
      this.counts.elections += 1;
      for (const [index, term] of this.#committed) {
        const own = raft.termAt(asIndex(index));
        if ((this.#committedIn.get(index) ?? 0) >= raft.term) continue; // a leader of old, elected late
        if (index > raft.lastIndex || (own !== null && own !== term))
          throw new Error(`leader ${id} of term ${raft.term} lacks committed ${index}@${term}`);
      }
    } else if (other !== id) throw new Error(`term ${raft.term} has leaders ${other} and ${id}`);
    const key = `${id}@${raft.term}`;
    const before = this.#led.get(key);
    if (before !== undefined) {
      const kept = raft.termAt(before.last);
      if (raft.lastIndex < before.last || (kept !== null && kept !== before.lastTerm))
        throw new Error(`leader ${id} of term ${raft.term} changed its own log`);
    }
    this.#led.set(key, { last: raft.lastIndex, lastTerm: raft.lastTerm });
  }

  #checkCommit({ id, raft }: Member): void {
    const known = this.#knownCommit.get(id) ?? 0;
    if (raft.commit < known) throw new Error(`commit of ${id} went back`);
    for (let index = known + 1; index <= raft.commit; index++) {
      const term = raft.termAt(asIndex(index));
      if (term === null) continue; // compacted
      const before = this.#committed.get(index);
      if (before !== undefined && before !== term)
        throw new Error(`${index} was committed as term ${before}, ${id} has term ${term}`);
      if (before !== undefined) continue;
      this.#committed.set(index, term);
      this.#committedIn.set(index, raft.term);
      this.counts.commits += 1;
    }
    if (raft.commit > this.#highestCommit) {
      this.#checkQuorumHolds(id, raft.commit);
      this.#highestCommit = raft.commit;
    }
    this.#knownCommit.set(id, raft.commit);
  }

  /** I7, I8, I13: first seen committed at a leader, by an entry of its own term, on the disks of a quorum. */
  #checkQuorumHolds(id: NodeId, index: LogIndex): void {
    const raft = this.#members.get(id)?.raft;
    if (raft === undefined) return;
    const term = raft.termAt(index);
    const holds = (each: NodeId): boolean => {
      const disk = this.#members.get(each)?.disk ?? this.#down.get(each);
      if (disk === undefined) return false;
      if (disk.compacted.index >= index || disk.termAt(index) === term) return true;
      return disk.lost.some((entry) => entry.index === index && entry.term === term);
    };
    if (!hasQuorum(raft.configuration, holds))
      throw new Error(`${index}@${term} is committed by ${id} and not on the disks of a quorum`);
  }

  /** I4: equal term at an index means equal logs up to it. */
  checkLogMatching(): void {
    const disks = [...this.#members.values()]
      .map(({ disk }) => disk)
      .concat(...this.#down.values());
    for (const a of disks) {
      for (const b of disks) {
        if (a === b) continue;
        let agreed = false;
        for (let index = Math.min(a.last, b.last); index > 0; index--) {
          const [left, right] = [a.termAt(index), b.termAt(index)];
          if (left === null || right === null) break;
          if (left === right) agreed = true;
          else if (agreed) throw new Error(`logs agree after ${index} and not at ${index}`);
        }
      }
    }
  }

  // ------------------------------------------------------------------ healing

  /** Everything runs and is connected, nothing is lost: the cluster must elect, commit and converge. */
  heal(): void {
    while (this.#down.size > 0) this.#restart();
    this.#cut.clear();
    for (let round = 0; round < 400; round++) {
      for (const member of this.#members.values()) member.raft.tick();
      this.#drain();
      const leader = this.#leader();
      if (leader === null || round < 100 || round % 20 !== 0) continue;
      leader.raft.propose([{ kind: "command", data: new Uint8Array(10) }]);
      this.#drain();
      leader.raft.tellCommit();
      this.#drain();
      if (this.#converged(leader)) return;
    }
    // Who is needed by a change of the membership may be the one that must not vote.
    if (this.#faults.membership && this.counts.damages > 0) return;
    const state = [...this.#members.values()].map(({ raft, applied }) => [
      raft.id,
      raft.role,
      raft.term,
      raft.leader,
      raft.lastIndex,
      raft.commit,
      applied,
      raft.configuration.voters.join(),
      raft.configuration.outgoing.join(),
      [...raft.progress()],
    ]);
    throw new Error(`no progress after healing: ${JSON.stringify(state)}`);
  }

  #drain(): void {
    for (let turn = 0; turn < 2_000; turn++) {
      let busy = false;
      for (const member of this.#members.values()) {
        this.#pump(member);
        while (this.#persist(member)) busy = true;
        while (member.fetch()) busy = true;
        if (member.installs.length > 0) {
          this.#install(member);
          busy = true;
        }
        this.#pump(member);
        this.#check(member);
        this.#apply(member);
        this.#network.push(...member.sent.splice(0));
        member.reads.length = 0;
      }
      for (const message of this.#network.splice(0)) {
        busy = true;
        this.#members.get(message.to)?.raft.step(message);
      }
      if (!busy) return;
    }
    throw new Error("the cluster does not come to rest: a storm of messages");
  }

  #converged(leader: Member): boolean {
    const { configuration, lastIndex, commit } = leader.raft;
    if (commit !== lastIndex || configuration.outgoing.length > 0) return false;
    return [...configuration.voters, ...configuration.learners].every((id) => {
      const member = this.#members.get(id);
      return (
        member !== undefined && member.applied === lastIndex && member.raft.lastIndex === lastIndex
      );
    });
  }
}
