/**
 * Whom this member talks to. Identity is the id and the incarnation of the data folder; addresses change.
 *
 * - Members by this member's log, by turns at the addresses that are known of them: that of `--peers`, the log's, and
 *   the one that they told. Who answers proves who it is; so an address that is out of date keeps nobody out.
 * - Guests: members by a newer configuration than this member has. A follower that was away takes entries of a
 *   leader that it does not know (dissertation 4.1), or it would never learn of it. What a guest showed of the log may be
 *   older than its own admission; so one that leads stays a guest, however far this member's log has come.
 * - Those who were removed a moment ago, until they were told.
 *
 * Also judges who is let in, asks the leader to add an empty folder that knocks, and knows whether this member
 * is one itself. Decides nothing about the membership: that is membership.ts.
 */
import { MEMBERS_MAX } from "../raft/configuration.ts";
import { type Configuration, INDEX_0, type LogIndex, type NodeId } from "../raft/types.ts";
import { CallError } from "./consensus.ts";
import type { Clock, Identity, Judged, Log, Millis, PeerHello, Refusal, Timer } from "./ports.ts";
import type { Sightings } from "./sightings.ts";

/** A removed member is still dialled for this long, to be told. */
const FAREWELL_MS: Millis = 2_000;
/** Empty folders that asked to be added, and what became of it. */
const KNOCKS_MAX = 64;
/** A refusal by another member explains why there is no leader for this long. */
const REFUSAL_MS: Millis = 10_000;
/** What a member said of its address when it connected. */
interface Word {
  readonly url: string;
  /** Of the process that said it. */
  readonly boot: number;
  /** That process is connected, as far as is known: until the connection to it ends. */
  readonly holds: boolean;
}

/** The leader's time to add a member that knocks. */
export const JOIN_MS: Millis = 10_000;

export interface AdmissionPort {
  readonly identity: Identity;
  /** This member's own address. */
  readonly advertise: string;
  /** `--peers`: addresses that this member dials before the log's. */
  readonly overrides: ReadonlyMap<NodeId, string>;
  readonly clock: Clock;
  readonly log: Log;
  readonly sightings: Sightings;
  clusterId(): string | null;
  /** Null until there is a log. */
  membership(): {
    readonly configuration: Configuration;
    /** Where that stands in the log, and up to where the log is committed. */
    readonly index: LogIndex;
    readonly commit: LogIndex;
  } | null;
  /** As of an entry of this log; null where the log does not reach back so far. */
  configurationAt(index: LogIndex): Configuration | null;
  /** This member was removed, as the sentence says. */
  retired(sentence: string): void;
  /** Asks the leader to add this member. @throws CallError it will not; ConsensusError not now */
  add(hello: PeerHello): Promise<unknown>;
  /** Whom to dial has changed. */
  redial(): void;
  dismiss(peer: NodeId, refusal: Refusal): void;
}

export class Admission {
  readonly #port: AdmissionPort;
  readonly #guests = new Map<NodeId, { readonly url: string; readonly configIndex: LogIndex }>();
  readonly #leaving = new Map<NodeId, { readonly url: string; readonly timer: Timer }>();
  /** By incarnation: null while the leader is asked, a sentence once it said no. */
  readonly #knocks = new Map<string, string | null>();
  readonly #words = new Map<NodeId, Word>();
  /** What was told of `--peers` and the membership: the membership's address, by member. */
  readonly #differs = new Map<NodeId, string>();
  #refusedAt: Millis | null = null;
  #refusal: { readonly of: NodeId; readonly sentence: string } | null = null;
  /** Of the first configuration that held this very folder: if the newest does not, this member was removed. */
  #since: LogIndex | null = null;
  #retired: string | null = null;

  /** `removed`: what an earlier process of this folder was told, in a sentence. */
  constructor(port: AdmissionPort, removed: string | null) {
    this.#port = port;
    this.#retired = removed;
  }

  // ------------------------------------------------------------------ this member itself

  /**
   * A configuration of the log, which stands at `index`, in ascending order, until the log is cut; `removed`: by the
   * one before it, they were members.
   */
  follow(
    configuration: Configuration,
    index: LogIndex,
    removed: readonly (readonly [NodeId, string])[],
  ): void {
    // The change that let this folder in was cut off the log again: it never was a member so far.
    if (this.#since !== null && (index < this.#since || !this.#isHeldAt(this.#since)))
      this.#since = null;
    if (this.#holds(configuration)) this.#since ??= index;
    for (const [id, url] of removed) this.#farewell(id, url);
    for (const id of Object.keys(configuration.members))
      this.#leaving.get(id as NodeId)?.timer.cancel();
    for (const id of Object.keys(configuration.members)) this.#leaving.delete(id as NodeId);
  }

  /** Another log, that of a snapshot with this configuration, took the place of this member's: `follow` begins anew. */
  logReplaced(configuration: Configuration, index: LogIndex): void {
    this.#since = this.#holds(configuration) ? index : null;
  }

  #holds({ members }: Configuration): boolean {
    const { id, incarnation } = this.#port.identity;
    return members[id]?.incarnation === incarnation;
  }

  /** What the log has forgotten was committed, and is as it was. */
  #isHeldAt(index: LogIndex): boolean {
    const configuration = this.#port.configurationAt(index);
    return configuration === null || this.#holds(configuration);
  }

  /** The newest configuration is committed and does not hold this folder, though an earlier one did. */
  settled(configuration: Configuration, index: LogIndex): void {
    if (this.#since === null || this.#retired !== null || this.#holds(configuration)) return;
    this.retire(index);
  }

  /**
   * What stands in the log up to here was asked by others, if under this id then by an earlier folder, whose starts
   * were counted from one as well. Null: all of it.
   */
  get memberSince(): LogIndex | null {
    return this.#since;
  }

  /** At the start: an earlier process was told, and this one may have a log that does not. */
  remember(): void {
    if (this.#retired === null) return;
    this.#port.log.warn(this.#retired);
    this.#port.retired(this.#retired);
  }

  /** From now on this member takes part in nothing. */
  retire(index: LogIndex): void {
    this.#retireFor(` at log index ${index}`);
  }

  #retireFor(why: string): void {
    if (this.#retired !== null) return;
    const { identity, log } = this.#port;
    this.#retired = `${identity.id} was removed from cluster ${this.#port.clusterId() ?? "?"}${why}: it takes no requests any more. End it; to come back it needs an empty --data and --join`;
    log.warn(this.#retired);
    this.#port.retired(this.#retired);
  }

  /** A sentence once this member knows that it was removed. */
  get retired(): string | null {
    return this.#retired;
  }

  /**
   * This member's log is older than its folder: an earlier folder of the same id is a member by it. It must
   * neither vote nor campaign until it has caught up with the change that added it.
   */
  isStranger(configuration: Configuration): boolean {
    const { identity } = this.#port;
    const own = configuration.members[identity.id];
    return own !== undefined && own.incarnation !== identity.incarnation;
  }

  /** Why this member finds no leader, as another one said a moment ago; else null. */
  whyAlone(now: Millis): string | null {
    if (this.#refusal === null || this.#refusedAt === null) return null;
    if (now - this.#refusedAt > REFUSAL_MS) return null;
    return this.#refusal.sentence;
  }

  /**
   * `by` would not let this member in, or this one `by`. Who showed that it was a member by a committed change, and is none
   * by another that is no older, was removed in between, and perhaps never got the word of it.
   */
  refusedBy(by: NodeId, { sentence, code }: Refusal, judged: Judged): void {
    const own = judged.what === "peer";
    // It dials on, and that explains nothing here.
    if (own && code === "removed") return;
    const told = own ? `${by} is refused: ${sentence}` : `refused by ${by}: ${sentence}`;
    this.#refusal = { of: by, sentence: told };
    this.#refusedAt = this.#port.clock.monotonic();
    if (code !== "removed" || judged.what !== "hello" || this.#since === null) return;
    const { commit = INDEX_0 } = this.#port.membership() ?? {};
    if (this.#since > Math.min(commit, judged.configIndex)) return;
    this.#retireFor(`, as ${by} says (${sentence})`);
  }

  /** Whom this member dialled let it in. */
  welcomed(hello: PeerHello): void {
    const { id } = hello;
    this.#heardWord(hello);
    if (this.#refusal?.of === id) this.#refusal = null;
  }

  /** The connection to the process of `id` that was started so many times is over. */
  lost(id: NodeId, boot: number): void {
    const word = this.#words.get(id);
    if (word?.boot === boot) this.#words.set(id, { ...word, holds: false });
  }

  #heardWord({ id, boot, advertise }: PeerHello): void {
    const known = this.#words.get(id);
    this.#words.set(id, { url: advertise, boot, holds: true });
    if (known?.url === advertise) return;
    const url = this.#port.membership()?.configuration.members[id]?.url;
    if (url !== undefined && url !== advertise) this.#port.clock.soon(() => this.#port.redial());
  }

  // ------------------------------------------------------------------ whom to dial

  /** Of each member that is to be dialled, where it may be, likeliest first. `leader`: whom this member follows. */
  addresses(
    { members }: Configuration,
    index: LogIndex,
    leader: NodeId | null,
  ): Map<NodeId, readonly string[]> {
    const { identity } = this.#port;
    const addresses = new Map<NodeId, readonly string[]>();
    for (const [key, { url }] of Object.entries(members)) {
      const id = key as NodeId;
      if (id !== identity.id) this.#tellDifference(id, url);
      addresses.set(id, this.#places(id, url));
    }
    for (const [id, guest] of this.#guests) {
      const isPast = index >= guest.configIndex;
      if (isPast && members[id] !== undefined) this.#guests.delete(id);
      else if (!isPast || id === leader) addresses.set(id, this.#places(id, guest.url));
    }
    for (const [id, { url }] of this.#leaving)
      if (!addresses.has(id)) addresses.set(id, this.#places(id, url));
    addresses.delete(identity.id);
    return addresses;
  }

  #places(id: NodeId, url: string): readonly string[] {
    const given = this.#port.overrides.get(id);
    const told = this.#words.get(id)?.url;
    const all = [given, url, told].filter((place) => place !== undefined);
    return [...new Set(all)];
  }

  /** Once for each address: on purpose behind NAT, else a flag that was forgotten when a member moved. */
  #tellDifference(id: NodeId, url: string): void {
    const { overrides, log } = this.#port;
    const given = overrides.get(id);
    if (given === undefined || given === url || this.#differs.get(id) === url) return;
    this.#differs.set(id, url);
    log.info(`--peers has ${id} at ${given}, the membership at ${url}: both are dialled by turns`, {
      peer: id,
    });
  }

  /** The address that a running member gives as its own; null: it is not connected, or was not heard of. */
  advertised(id: NodeId): string | null {
    if (id === this.#port.identity.id) return this.#port.advertise;
    const word = this.#words.get(id);
    return word?.holds === true ? word.url : null;
  }

  #farewell(id: NodeId, url: string): void {
    const port = this.#port;
    if (id === port.identity.id) return;
    port.sightings.forget(id);
    this.#words.delete(id);
    this.#leaving.get(id)?.timer.cancel();
    const timer = port.clock.after(FAREWELL_MS, () => {
      this.#leaving.delete(id);
      port.redial();
      port.dismiss(id, this.#noMember(id));
    });
    this.#leaving.set(id, { url, timer });
  }

  stop(): void {
    for (const { timer } of this.#leaving.values()) timer.cancel();
    this.#leaving.clear();
  }

  // ------------------------------------------------------------------ who is let in

  /** Null lets it in. Only once there is a log; before, the founder judges. */
  admit(hello: PeerHello): Refusal | null {
    const membership = this.#port.membership();
    const clusterId = this.#port.clusterId();
    const { id } = this.#port.identity;
    if (hello.id === id)
      return refused(`${hello.id} is this member's own id: every member needs one of its own`);
    if (membership === null) return null;
    // Nobody that it asks would listen to it.
    if (this.#retired !== null && hello.join === true)
      return refused(`${id} is no member any more: --join the address of one that is`, "no-join");
    if (hello.clusterId !== null && hello.clusterId !== clusterId)
      return refused(
        `${id} belongs to cluster ${clusterId}, ${hello.id} to ${hello.clusterId}`,
        "no-join",
      );
    const record = membership.configuration.members[hello.id];
    const isEmpty = hello.clusterId === null && hello.lastIndex === 0;
    // It holds a part of the log by now, but the change that let it in was lost with its leader.
    const isBeginner = hello.clusterId === clusterId && hello.join === true;
    if (record?.incarnation === hello.incarnation) {
      const older = this.#port.sightings.refusal(hello);
      if (older !== null) return refused(older);
      this.#heardWord(hello);
      return null;
    }
    const newer = (hello.configIndex ?? 0) > membership.index;
    if (hello.clusterId !== null && newer) return this.meet(hello);
    if (record === undefined) {
      const knocks = isBeginner || (isEmpty && hello.join === true);
      return knocks ? this.#knock(hello) : this.#noMember(hello.id);
    }
    if (record.incarnation === "") {
      if (isEmpty || isBeginner) return this.#knock(hello);
      return refused(
        `${hello.id} was added to cluster ${clusterId} and has a data folder that was used: give it an empty one`,
        hello.clusterId === null || !this.#isSettled ? "no-join" : "removed",
      );
    }
    const sentence = `${hello.id} has another data folder than the one that joined cluster ${clusterId}: remove it (DELETE /api/cluster/members/${hello.id}), then let it join again with an empty folder`;
    if (hello.clusterId !== null && this.#isSettled) return refused(sentence, "removed");
    // The leader knows whether it is one still: this member may have to catch up with its removal.
    if (!isEmpty || hello.join !== true) return refused(sentence);
    const knocked = this.#knock(hello);
    return knocked.code === "joining" ? refused(sentence) : knocked;
  }

  #noMember(id: NodeId): Refusal {
    return refused(
      `${id} is not a member of cluster ${this.#port.clusterId()}`,
      this.#isSettled ? "removed" : "refused",
    );
  }

  /** The configuration in force is committed: whom it leaves out is out. */
  get #isSettled(): boolean {
    const membership = this.#port.membership();
    return membership !== null && membership.index <= membership.commit;
  }

  /** A member by a newer configuration than this member's: dialled until that has come. */
  meet(hello: PeerHello): Refusal | null {
    const { configIndex = INDEX_0 } = hello;
    const known = this.#guests.get(hello.id);
    if (known === undefined && this.#guests.size >= MEMBERS_MAX) this.#forgetPastGuests();
    if (known === undefined && this.#guests.size >= MEMBERS_MAX)
      return refused("too many members that this one does not know yet");
    this.#guests.set(hello.id, { url: hello.advertise, configIndex });
    if (known?.url !== hello.advertise) this.#port.clock.soon(() => this.#port.redial());
    return null;
  }

  /** Whether they were removed since, or admitted later than they showed, they come again if they are members. */
  #forgetPastGuests(): void {
    const index = this.#port.membership()?.index ?? INDEX_0;
    for (const [id, { configIndex }] of this.#guests)
      if (index >= configIndex) this.#guests.delete(id);
  }

  /** The oldest: whoever was refused may never come again to hear it. */
  #forgetRefusedKnock(): void {
    for (const [incarnation, refusal] of this.#knocks) {
      if (refusal === null) continue;
      this.#knocks.delete(incarnation);
      return;
    }
  }

  /** An empty folder asks to be added, or belongs to a member that was added before it came. */
  #knock(hello: PeerHello): Refusal {
    const { incarnation, id } = hello;
    const known = this.#knocks.get(incarnation);
    if (typeof known === "string") {
      this.#knocks.delete(incarnation);
      return refused(known, "no-join");
    }
    const joining = refused(`${id} is being added to cluster ${this.#port.clusterId()}`, "joining");
    if (known === null) return joining;
    if (this.#knocks.size >= KNOCKS_MAX) this.#forgetRefusedKnock();
    if (this.#knocks.size >= KNOCKS_MAX) return joining;
    this.#knocks.set(incarnation, null);
    this.#port.add(hello).then(
      () => this.#knocks.delete(incarnation),
      (error: unknown) => {
        if (error instanceof CallError && error.reason !== "change-pending")
          this.#knocks.set(incarnation, error.message);
        else this.#knocks.delete(incarnation);
      },
    );
    return joining;
  }
}

function refused(sentence: string, code: Refusal["code"] = "refused"): Refusal {
  return { sentence, code };
}
