/**
 * Changes of the membership, as the leader makes them (docs/membership.md): adding, removing, new addresses, and the
 * promotion of learners, which nobody has to ask for. The core turns a change into a joint configuration and
 * leaves that; here is what must hold before one is begun, and who waits for it.
 *
 * Whatever was asked can be asked again at the next leader: each request says what shall be, and one that is
 * true already changes nothing.
 */
import { MEMBERS_MAX } from "../raft/configuration.ts";
import { isJoint } from "../raft/quorum.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration, ConfigurationChange, MemberRecord, NodeId } from "../raft/types.ts";
import type { Admission } from "./admission.ts";
import { CallError, type Leadership } from "./consensus.ts";
import { notLeader } from "./errors.ts";
import type { Clock, Log, Millis } from "./ports.ts";
import {
  type PromotionPlan,
  type PromotionView,
  planPromotion,
  quorumRefusal,
} from "./promotion.ts";

/** Between two looks of a leader at learners and addresses. */
const LOOK_MS: Millis = 100;
/** Between two looks at whether a change is done. */
const POLL_MS: Millis = 10;
/** A request waits this long for its change, and for one that is under way. */
const CHANGE_MS: Millis = 4_000;
/** A leader that is removed hands over first, and waits this long for somebody to take it. */
const HANDOVER_MS: Millis = 1_500;
/**
 * Who has just begun to lead does not go yet: what others ask of it may be on its way, the removal of the one that led before
 * it too. Were both to go, each would else hand over to the other without an end. Longer than a question takes to find it.
 */
const STAY_MS: Millis = 500;
/** An address that changes again and again costs a log entry at most so often. */
const ADDRESS_MS: Millis = 5_000;
/** Members that are connected say something every second: who says nothing for so long does not run. */
const SILENCE_MS: Millis = 3_000;
/** Removed members that are remembered, so that asking twice for the same removal is no mistake. */
const REMOVED_MAX = 64;
const REMOVED_MS: Millis = 60_000;

/** What shall be of a member. */
export interface MemberRequest {
  readonly id: NodeId;
  readonly url: string;
  /** The folder that asks to join; null: an operator adds the member, with the first empty folder that comes. */
  readonly incarnation: string | null;
  /** Becomes a voter even if that makes their number even. */
  readonly voter: boolean;
  /** Goes in the change that makes this one a voter. */
  readonly replaces: NodeId | null;
}

export interface MembershipPort {
  readonly self: NodeId;
  readonly clock: Clock;
  readonly log: Log;
  readonly admission: Admission;
  /** Without a word for longer than this a member does not answer. */
  readonly contactTimeoutMs: Millis;
  raft(): Raft | null;
  clusterId(): string | null;
  leadership(): Leadership;
  contactMs(peer: NodeId): Millis | null;
  connected(peer: NodeId): boolean;
  /** Whose state is known to be wrong. */
  wrongMembers(): ReadonlySet<NodeId>;
  /** Leader: everybody was asked since it began to lead. */
  knowsWrongMembers(): boolean;
  transfer(to: NodeId | null, timeoutMs: Millis): Promise<boolean>;
  notify(to: NodeId, method: string, body: unknown): void;
  schedulePump(): void;
}

export class Membership {
  readonly #port: MembershipPort;
  readonly #removed = new Map<NodeId, Millis>();
  readonly #addressAt = new Map<NodeId, Millis>();
  /** Folders that went with the newest configuration; told once it is committed. */
  #untold: { readonly id: NodeId; readonly incarnation: string }[] = [];
  #waiting: PromotionPlan["waiting"] = new Map();
  #nextLookAt: Millis = 0;
  #steppingDown = false;
  #leadsSince: Millis | null = null;

  constructor(port: MembershipPort) {
    this.#port = port;
  }

  /** Leader: why each learner is none of the voters yet. */
  get waiting(): ReadonlyMap<NodeId, string> {
    return this.#port.leadership().role === "leader" ? this.#waiting : new Map();
  }

  // ------------------------------------------------------------------ requests

  /** True: it was no member before. @throws CallError not acceptable; ConsensusError not-leader: ask the next one */
  async add(request: MemberRequest): Promise<boolean> {
    const deadline = this.#port.clock.monotonic() + CHANGE_MS;
    const isNew = this.#leading().configuration.members[request.id] === undefined;
    for (;;) {
      const raft = this.#leading();
      const changes = this.#toAdd(raft, request);
      if (changes.length === 0 && raft.configurationIndex <= raft.commit) return isNew;
      if (changes.length === 0) await this.#pause(deadline);
      else if (await this.#change(changes, deadline)) return isNew;
    }
  }

  /** Resolves once the configuration without it is committed. @throws as `add` */
  async remove(id: NodeId): Promise<void> {
    const { clock, self } = this.#port;
    const deadline = clock.monotonic() + CHANGE_MS;
    for (;;) {
      const raft = this.#leading();
      const { configuration } = raft;
      if (configuration.members[id] === undefined) {
        const known = this.#removed.get(id);
        if (known === undefined || clock.monotonic() - known > REMOVED_MS)
          throw new CallError("not-found", `There is no member ${id}.`);
        if (raft.configurationIndex <= raft.commit) return;
        await this.#pause(deadline);
        continue;
      }
      if (isJoint(configuration)) {
        await this.#pause(deadline);
        continue;
      }
      // Who goes itself hands over first, and asks if nobody takes it: it would wait for longer than its operator.
      const mayBeLast = id !== self && this.#mayBeMoreWrong();
      if (!mayBeLast) this.#mayLose(configuration, id);
      if (mayBeLast || (id === self && !this.#mayGo())) {
        await this.#pause(deadline);
        continue;
      }
      if (id === self) {
        if (await this.#port.transfer(null, HANDOVER_MS)) throw notLeader();
        // Nobody took over: perhaps since they are wrong.
        if (!this.#port.knowsWrongMembers()) {
          await this.#pause(deadline);
          continue;
        }
        this.#mayLose(this.#leading().configuration, id);
      }
      if (await this.#change([{ op: "remove", id }], deadline)) return;
    }
  }

  /** Hands leadership to `to`. @throws as `add` */
  async transfer(to: NodeId, timeoutMs: Millis): Promise<void> {
    const raft = this.#leading();
    if (to === this.#port.self) return;
    const { configuration } = raft;
    if (configuration.members[to] === undefined)
      throw new CallError("not-found", `There is no member ${to}.`);
    if (!configuration.voters.includes(to))
      throw new CallError(
        "not-a-voter",
        `${to} is ${configuration.outgoing.includes(to) ? "on its way out" : "a learner"}: only voters can lead.`,
      );
    if (!this.#reachable(to))
      throw new CallError("unreachable", `${to} does not answer: it cannot take over.`);
    if (await this.#port.transfer(to, timeoutMs)) return;
    throw new CallError(
      "not-taken",
      `${to} did not take over in time; ${this.#port.self} goes on.`,
    );
  }

  #leading(): Raft {
    const raft = this.#port.raft();
    if (raft === null || !this.#port.leadership().active) throw notLeader();
    return raft;
  }

  /** What makes `request` true; nothing when it is. @throws CallError it cannot be */
  #toAdd(raft: Raft, request: MemberRequest): ConfigurationChange[] {
    const { id, url, incarnation, replaces } = request;
    const { configuration } = raft;
    const { members, learners } = configuration;
    const record = members[id];
    // The request came late, or again from who was not told that it was done: since then the folder was removed.
    if (incarnation !== null && record?.incarnation !== incarnation && raft.hasHeld(incarnation))
      throw new CallError(
        "folder-used",
        `The data folder of ${id} belonged to a member that was removed: give it an empty one.`,
      );
    const twin = (Object.keys(members) as NodeId[]).find(
      (other) => other !== id && [members[other]?.url, this.#ownWord(other)].includes(url),
    );
    if (twin !== undefined)
      throw new CallError(
        "address-taken",
        `${twin} is at ${url}: every member needs its own address.`,
      );
    const asBefore =
      record !== undefined && (!learners.includes(id) || record.replaces === replaces);
    if (replaces !== null && (replaces === id || (!asBefore && members[replaces] === undefined)))
      throw new CallError(
        "bad-replacement",
        replaces === id
          ? `${id} cannot replace itself: remove it first, then add it with an empty folder.`
          : `There is no member ${replaces} to replace.`,
      );
    if (replaces !== null && configuration.voters.includes(id) && members[replaces] !== undefined)
      throw new CallError(
        "bad-replacement",
        `${id} is a voter already and takes nobody's place: remove ${replaces} instead.`,
      );
    const rival = learners.find((other) => other !== id && members[other]?.replaces === replaces);
    if (replaces !== null && rival !== undefined && members[replaces] !== undefined)
      throw new CallError(
        "bad-replacement",
        `${rival} is to take the place of ${replaces} already: add it again without that wish, or remove it, first.`,
      );
    const wanted = this.#record(configuration, request);
    if (record === undefined) {
      if (Object.keys(members).length >= MEMBERS_MAX)
        throw new CallError("too-many", `A cluster has ${MEMBERS_MAX} members at most.`);
      return [{ op: "add-learner", id, record: wanted }];
    }
    if (incarnation !== null && record.incarnation !== "" && record.incarnation !== incarnation)
      throw new CallError(
        "member-exists",
        `${id} is a member already, with another data folder: remove it first (DELETE /api/cluster/members/${id}), or give this one another --id.`,
      );
    // While it runs its own word counts: it would be put back in its place.
    const said = this.#ownWord(id);
    if (incarnation === null && url !== record.url && said !== null && said !== url)
      throw new CallError(
        "address-differs",
        `${id} is running and says that its address is ${said}: start it with --advertise ${url} instead.`,
      );
    return sameRecord(record, wanted) ? [] : [{ op: "update", id, record: wanted }];
  }

  /** An operator's wishes are the newest request's; a folder that knocks has none of its own. */
  #record(configuration: Configuration, request: MemberRequest): MemberRecord {
    const { id, url, incarnation, voter, replaces } = request;
    const known = configuration.members[id];
    const learns = known === undefined || configuration.learners.includes(id);
    const knocks = incarnation !== null;
    const place = replaces ?? (knocks ? known?.replaces : undefined);
    const wish = learns && (voter || (knocks && known?.voter === true));
    return {
      url,
      incarnation: incarnation ?? known?.incarnation ?? "",
      ...(wish ? { voter: true } : {}),
      ...(learns && place !== undefined ? { replaces: place } : {}),
    };
  }

  /** @throws CallError the others could not go on without it */
  #mayLose({ voters }: Configuration, id: NodeId): void {
    if (!voters.includes(id)) return;
    const left = voters.filter((voter) => voter !== id);
    if (left.length === 0)
      throw new CallError("last-voter", `${id} is the only voter: a cluster without one is none.`);
    const refusal = quorumRefusal(left, this.#view());
    if (refusal === null) return;
    throw new CallError("quorum-at-risk", `Removing ${id} would stop the cluster: ${refusal}.`);
  }

  /**
   * Begins a change, and waits until it is committed and left: true, whatever was changed since. Two who want opposite
   * things would else take each other's change back without an end. False, after a moment: another one is under way.
   */
  async #change(changes: readonly ConfigurationChange[], deadline: Millis): Promise<boolean> {
    const before = this.#leading();
    const result = before.proposeChange(changes);
    if (!result.ok) {
      if (result.reason === "invalid") throw new CallError("not-possible", `${result.detail}.`);
      if (result.reason === "not-leader") throw notLeader();
      await this.#pause(deadline);
      return false;
    }
    this.#told(changes);
    this.#port.schedulePump();
    for (;;) {
      const raft = this.#leading();
      if (raft.term !== result.term) throw notLeader();
      if (raft.commit >= result.first && !isJoint(raft.configurationAt(raft.commit))) return true;
      await this.#pause(deadline);
    }
  }

  #told(changes: readonly ConfigurationChange[]): void {
    const words = changes.map(({ op, id }) => `${op} ${id}`);
    this.#port.log.info("changing the membership", { changes: words });
  }

  /** @throws CallError when the time is up */
  async #pause(deadline: Millis): Promise<void> {
    const { clock } = this.#port;
    if (clock.monotonic() >= deadline)
      throw new CallError(
        "change-pending",
        "Another change of the membership is under way, or cannot be committed: one at a time.",
      );
    await new Promise<void>((resolve) => {
      clock.after(POLL_MS, resolve);
    });
  }

  // ------------------------------------------------------------------ by itself

  /** The configuration in force has changed. */
  follow(before: Configuration, configuration: Configuration): void {
    const { clock } = this.#port;
    const now = clock.monotonic();
    for (const [key, { incarnation }] of Object.entries(before.members)) {
      const id = key as NodeId;
      if (configuration.members[id] !== undefined) continue;
      this.#removed.set(id, now);
      // Else it waited for a folder: whichever has come meanwhile was no member.
      if (incarnation !== "") this.#untold.push({ id, incarnation });
      this.#addressAt.delete(id);
    }
    for (const id of Object.keys(configuration.members) as NodeId[]) this.#removed.delete(id);
    this.#untold = this.#untold.filter(({ id }) => configuration.members[id] === undefined);
    for (const oldest of this.#removed.keys()) {
      if (this.#removed.size <= REMOVED_MAX) break;
      this.#removed.delete(oldest);
    }
  }

  /** On every tick, at any member. */
  look(now: Millis): void {
    const raft = this.#port.raft();
    if (raft === null) return;
    if (raft.configurationIndex <= raft.commit) this.#tellRemoved(raft);
    this.#leadsSince = this.#port.leadership().active ? (this.#leadsSince ?? now) : null;
    if (now < this.#nextLookAt) return;
    this.#nextLookAt = now + LOOK_MS;
    if (!this.#port.leadership().active) {
      this.#waiting = new Map();
      return;
    }
    const plan = planPromotion({
      configuration: raft.configuration,
      notReady: (learner) => this.#notReady(raft, learner),
      ...this.#view(),
    });
    this.#waiting = plan.waiting;
    if (raft.configurationIndex > raft.commit || isJoint(raft.configuration)) return;
    const changes = plan.changes.length > 0 ? plan.changes : this.#newAddresses(raft, now);
    if (changes.some(({ op }) => op === "remove") && this.#mayBeMoreWrong()) return;
    if (changes.length > 0) this.#step(raft, changes);
  }

  /** Somebody's state is, and perhaps somebody else's, who has not been heard since this member leads. */
  #mayBeMoreWrong(): boolean {
    return this.#port.wrongMembers().size > 0 && !this.#port.knowsWrongMembers();
  }

  #step(raft: Raft, changes: readonly ConfigurationChange[]): void {
    const { self } = this.#port;
    const now = withoutRemovalOf(self, changes, raft.configuration);
    // Others first: were one of them to go as well, it could hand leadership back, and so on without an end.
    if (now.length > 0) {
      if (raft.proposeChange(now).ok) this.#told(now);
      return;
    }
    // This member goes itself: the next leader makes the change.
    if (this.#steppingDown || !this.#mayGo()) return;
    this.#steppingDown = true;
    void this.#port.transfer(null, HANDOVER_MS).finally(() => {
      this.#steppingDown = false;
    });
  }

  #mayGo(): boolean {
    return this.#leadsSince !== null && this.#port.clock.monotonic() - this.#leadsSince >= STAY_MS;
  }

  #tellRemoved(raft: Raft): void {
    const untold = this.#untold;
    if (untold.length === 0) return;
    this.#untold = [];
    const cluster = this.#port.clusterId();
    const index = raft.configurationIndex;
    if (raft.role !== "leader") return;
    for (const { id, incarnation } of untold)
      this.#port.notify(id, "members.removed", { cluster, index, incarnation });
  }

  /** A member that was started at another address says so when it connects; the leader knows its own. */
  #newAddresses(raft: Raft, now: Millis): ConfigurationChange[] {
    const { members } = raft.configuration;
    const moves = new Map<string, string>();
    for (const [id, record] of Object.entries(members)) {
      const url = this.#ownWord(id as NodeId);
      if (url === null || url === record.url || record.incarnation === "") continue;
      if (now - (this.#addressAt.get(id as NodeId) ?? Number.NEGATIVE_INFINITY) < ADDRESS_MS)
        continue;
      moves.set(id, url);
    }
    // Some may have swapped: an address is taken while another one keeps it, or goes there too.
    const after = (id: string): string | undefined => moves.get(id) ?? members[id]?.url;
    const isTaken = ([id, url]: readonly [string, string]): boolean =>
      Object.keys(members).some((other) => other !== id && after(other) === url);
    for (let taken = [...moves].find(isTaken); taken; taken = [...moves].find(isTaken))
      moves.delete(taken[0]);
    return Object.entries(members).flatMap(([key, record]) => {
      const id = key as NodeId;
      const url = moves.get(id);
      if (url === undefined) return [];
      this.#addressAt.set(id, now);
      return [{ op: "update" as const, id, record: { ...record, url } }];
    });
  }

  /** The address that a member that runs gives as its own; null: nobody knows, or it does not run. */
  #ownWord(id: NodeId): string | null {
    const port = this.#port;
    const silence = port.contactMs(id) ?? Number.POSITIVE_INFINITY;
    const runs = id === port.self || port.connected(id) || silence <= SILENCE_MS;
    return runs ? port.admission.advertised(id) : null;
  }

  #notReady(raft: Raft, learner: NodeId): string | null {
    const record = raft.configuration.members[learner];
    if (record?.incarnation === "")
      return "waits for a member of this id with an empty data folder (--join) to come";
    if (!this.#reachable(learner)) return "does not answer";
    return raft.behind(learner);
  }

  #view(): Pick<PromotionView, "reachable" | "wrong"> {
    const wrong = this.#port.wrongMembers();
    return { reachable: (id) => this.#reachable(id), wrong: (id) => wrong.has(id) };
  }

  #reachable(member: NodeId): boolean {
    const port = this.#port;
    if (member === port.self) return true;
    const ms = port.contactMs(member);
    return port.connected(member) && ms !== null && ms <= port.contactTimeoutMs;
  }
}

/** Nor with what takes its place; all of them when `id` stays. */
function withoutRemovalOf(
  id: NodeId,
  changes: readonly ConfigurationChange[],
  { members }: Configuration,
): readonly ConfigurationChange[] {
  if (!changes.some((change) => change.op === "remove" && change.id === id)) return changes;
  return changes.filter((change) => change.id !== id && members[change.id]?.replaces !== id);
}

function sameRecord(a: MemberRecord, b: MemberRecord): boolean {
  return (
    a.url === b.url &&
    a.incarnation === b.incarnation &&
    a.voter === b.voter &&
    a.replaces === b.replaces
  );
}
