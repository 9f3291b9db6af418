/** Leadership handed to another member: on request, or since it should not stay here. */
import type { Raft } from "../raft/raft.ts";
import type { LogIndex, NodeId } from "../raft/types.ts";
import type { ClockWatch } from "./clock-watch.ts";
import type { Consistency } from "./consistency.ts";
import type { Contacts } from "./contacts.ts";
import { type Core, TICK_MS } from "./core.ts";
import type { DiskRoom } from "./disk-room.ts";
import type { Clock, Log, Millis, Transport } from "./ports.ts";
import type { Standing } from "./standing.ts";

type Electorate = Pick<Raft, "role" | "transfer" | "progress">;

/** What it needs of the replica around it. */
export interface HandoverPort {
  readonly self: NodeId;
  readonly core: Pick<Core, "isStopped" | "electionTicks" | "schedulePump"> & {
    readonly raft: Electorate | null;
  };
  readonly standing: Pick<Standing, "leadership">;
  readonly clockWatch: Pick<ClockWatch, "agreesWith" | "skewed">;
  readonly consistency: Pick<Consistency, "wrongMembers">;
  readonly contacts: Pick<Contacts, "sinceMs">;
  readonly room: Pick<DiskRoom, "fullMembers">;
  readonly transport: Pick<Transport, "isConnected">;
  readonly clock: Clock;
  readonly log: Log;
}

export class Handover {
  readonly #port: HandoverPort;

  constructor(port: HandoverPort) {
    this.#port = port;
  }

  /** To `to`, or to the best follower. Resolves false when nobody took it in time. */
  async transfer(to: NodeId | null, timeoutMs: Millis): Promise<boolean> {
    const { core, standing, clock } = this.#port;
    const raft = core.raft;
    if (raft === null || raft.role !== "leader") return false;
    const target = to ?? this.#bestFollower(raft);
    if (target === null || !raft.transfer(target)) return false;
    core.schedulePump();
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const deadline = clock.monotonic() + timeoutMs;
    const look = (): void => {
      const { role, leader } = standing.leadership;
      if (role !== "leader" && leader !== null) resolve(true);
      else if (core.isStopped || clock.monotonic() >= deadline) resolve(false);
      else clock.after(TICK_MS, look);
    };
    look();
    return promise;
  }

  /** Best effort: whoever takes over may have a disk to write to. */
  giveUp(why: string): void {
    const { core, room, log } = this.#port;
    const target = core.raft === null ? null : this.#bestFollower(core.raft, room.fullMembers);
    if (target === null || core.raft?.transfer(target) !== true) return;
    log.warn(`${why}: handing leadership to ${target}`);
    core.schedulePump();
  }

  #bestFollower(raft: Electorate, except: ReadonlySet<NodeId> = new Set()): NodeId | null {
    const { self, core, clock, contacts, transport, clockWatch, consistency } = this.#port;
    const now = clock.monotonic();
    const wrong = consistency.wrongMembers();
    let best: { id: NodeId; match: LogIndex } | null = null;
    for (const [id, { match, mayLead }] of raft.progress()) {
      if (except.has(id) || wrong.has(id)) continue;
      if (id === self || !mayLead || !transport.isConnected(id)) continue;
      // Not whom the core has heard since it last counted its quorum: at the tick in which it does, that is nobody.
      const heardMs = contacts.sinceMs(id, now) ?? Number.POSITIVE_INFINITY;
      if (heardMs > core.electionTicks * TICK_MS) continue;
      // It would not take over; unless this member is the odd one out itself.
      if (!clockWatch.agreesWith(id) && clockWatch.skewed() === null) continue;
      if (best === null || match > best.match) best = { id, match };
    }
    return best?.id ?? null;
  }
}
