/**
 * What members tell each other on their own clock, beside the log: what is committed, how far each member was seen,
 * what the wall clocks and the disks are like.
 */
import type { Raft } from "../raft/raft.ts";
import { asIndex, type LogIndex, type NodeId } from "../raft/types.ts";
import type { Calls } from "./calls.ts";
import type { CatchingUp } from "./catching-up.ts";
import type { ClockWatch } from "./clock-watch.ts";
import type { Consistency } from "./consistency.ts";
import type { Core } from "./core.ts";
import type { DiskRoom } from "./disk-room.ts";
import { notLeader } from "./errors.ts";
import type { Founder } from "./founder.ts";
import type { Handover } from "./handover.ts";
import type { Clock, Identity, Millis, PeerFrame, PeerHello } from "./ports.ts";
import type { QuorumWatch } from "./quorum-watch.ts";
import type { Sightings } from "./sightings.ts";
import type { Snapshots } from "./snapshots.ts";
import { BEAT_MS, type Staleness } from "./staleness.ts";
import type { Standing } from "./standing.ts";

const CLOCK_WORD_MS: Millis = 1_000;
const FOUNDING_MS: Millis = 100;

/** What it needs of the replica around it. */
export interface BeatsPort {
  readonly identity: Identity;
  readonly clock: Clock;
  readonly core: Core;
  readonly standing: Standing;
  readonly quorum: QuorumWatch;
  readonly handover: Handover;
  readonly room: DiskRoom;
  readonly staleness: Staleness;
  readonly catchingUp: CatchingUp;
  readonly sightings: Sightings;
  readonly snapshots: Snapshots;
  readonly consistency: Consistency;
  readonly clockWatch: ClockWatch;
  readonly founder: Founder;
  readonly calls: Calls;
  /** Whose connection is open, and what they said of themselves. */
  readonly hellos: ReadonlyMap<NodeId, PeerHello>;
  applied(): LogIndex;
  send(to: NodeId, frame: PeerFrame): boolean;
}

export class Beats {
  readonly #port: BeatsPort;
  #nextBeatAt = 0;
  #nextClockWordAt = 0;
  #nextFoundingAt = 0;
  /** What a leader called the newest list of who was seen that this member has heard. */
  #known: string | null = null;

  constructor(port: BeatsPort) {
    this.#port = port;
    port.calls.serve("replica.beat", (body) => this.#answer(body));
    port.calls.serve("replica.clock", (body, from) => this.#hearClock(body, from));
  }

  /** On every tick. */
  speak(now: Millis): void {
    const { role, leader, active } = this.#port.standing.leadership;
    const { core, founder, consistency, handover, room, hellos } = this.#port;
    if (role === "leader" && now >= this.#nextBeatAt) {
      this.#nextBeatAt = now + BEAT_MS;
      // For the time after it leads: until it last had a quorum, nobody else could acknowledge anything.
      const contact = active ? this.#port.quorum.contactMs(now) : null;
      if (contact !== null && core.raft !== null) {
        this.#port.staleness.beat(now - contact, core.raft.commit, this.#port.applied());
        this.#port.catchingUp.heard(core.raft.commit);
      }
    } else if (leader !== null && now >= this.#nextBeatAt) {
      this.#nextBeatAt = now + BEAT_MS;
      this.#ask(leader, now);
    }
    if (now >= this.#nextClockWordAt) {
      this.#nextClockWordAt = now + CLOCK_WORD_MS;
      if (role === "leader" && room.isFull) handover.giveUp("the disk is almost full");
      if (role === "leader" && consistency.condemned !== null)
        handover.giveUp("the state differs from the others'");
      if (role === "leader" && core.raft !== null) this.#sight(core.raft);
      for (const peer of hellos.keys()) this.sendClock(peer);
    }
    if (now >= this.#nextFoundingAt) {
      this.#nextFoundingAt = now + FOUNDING_MS;
      founder.step();
    }
  }

  // ------------------------------------------------------------------ what is committed, who was seen

  #ask(leader: NodeId, now: Millis): void {
    const { calls, snapshots, sightings, staleness, catchingUp } = this.#port;
    void calls.ask("replica.beat", { known: this.#known }, now + 2 * BEAT_MS, leader).then(
      (body) => {
        const { commit, seen, known, floor } = (body ?? {}) as Partial<Record<string, unknown>>;
        snapshots.leaderKeeps(floor);
        if (seen !== undefined) sightings.heard(seen);
        if (typeof known === "string") this.#known = known;
        if (typeof commit !== "number") return;
        staleness.beat(now, asIndex(commit), this.#port.applied());
        catchingUp.heard(asIndex(commit));
      },
      () => undefined,
    );
  }

  /** Who was seen is told to who does not know it yet: it changes once a second, and is asked ten times. */
  async #answer(body: unknown): Promise<unknown> {
    const raft = this.#port.core.raft;
    if (raft === null || raft.role !== "leader") throw notLeader();
    const { snapshots, sightings, identity, standing } = this.#port;
    const known = `${identity.id}/${identity.incarnation}/${identity.boot}/${sightings.changes}`;
    // Before the entry that opens its term is committed, a leader may not know what others saw committed.
    const committed = standing.leadership.active ? { commit: raft.commit } : {};
    const answer = { ...committed, floor: snapshots.floor };
    if (((body ?? {}) as { known?: unknown }).known === known) return answer;
    return { ...answer, seen: sightings.toList(), known };
  }

  /** Leader: what each member has acknowledged on its disk, and is committed, does not go back there. */
  #sight(raft: Raft): void {
    const { hellos, sightings, identity } = this.#port;
    const { term, commit } = raft;
    for (const [id, { match }] of raft.progress()) {
      const record = raft.configuration.members[id];
      const hello = hellos.get(id);
      if (record === undefined || hello === undefined || match === 0) continue;
      const { boot, incarnation } = hello;
      // An earlier folder of the id is connected still.
      if (incarnation !== record.incarnation) continue;
      const index = asIndex(Math.min(match, commit));
      sightings.saw(id, { incarnation, boot, index, term });
    }
    const { id, incarnation, boot } = identity;
    const index = asIndex(Math.min(raft.durable, commit));
    sightings.saw(id, { incarnation, boot, index, term: raft.durableTerm });
  }

  // ------------------------------------------------------------------ wall clocks and disks

  sendClock(peer: NodeId): void {
    const disk = this.#port.room.word;
    const body = { wall: this.#port.clock.wall(), ...(disk === null ? {} : { disk }) };
    this.#port.send(peer, { kind: "call", id: 0, method: "replica.clock", body });
  }

  async #hearClock(body: unknown, from: NodeId): Promise<null> {
    const { wall, disk } = (body ?? {}) as { wall?: unknown; disk?: unknown };
    this.#port.room.heard(from, disk);
    if (typeof wall === "number" && Number.isFinite(wall)) this.#port.clockWatch.heard(from, wall);
    return null;
  }
}
