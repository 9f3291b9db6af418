/**
 * Membership and leadership as operators ask for them, at any member: the leader makes the change. Each
 * request says what shall be, so that repeating it is harmless; under an Idempotency-Key its first answer is
 * given again.
 */
import type { NodeId } from "../raft/types.ts";
import { CallError, type Consensus } from "../replica/consensus.ts";
import type { Millis } from "../replica/ports.ts";
import type { KeyedCalls } from "./keyed-calls.ts";
import { asQueueError } from "./proposals.ts";
import type { ClusterMemberView, ClusterView, IdempotencyScope } from "./types.ts";

export interface MemberIn {
  readonly id: string;
  /** Origin: scheme, host, port. */
  readonly url: string;
  /** A voter as soon as it can be, whatever becomes of their number. */
  readonly voter: boolean;
  /** Goes in the change that makes the other one a voter. */
  readonly replaces: string | null;
}

export const MEMBERSHIP_CODES = [
  "not-found",
  "member-exists",
  "address-taken",
  "address-differs",
  "bad-replacement",
  "too-many",
  "not-possible",
  "last-voter",
  "quorum-at-risk",
  "change-pending",
  "not-a-voter",
  "unreachable",
  "not-taken",
] as const;
export type MembershipCode = (typeof MEMBERSHIP_CODES)[number];

/** The leader will not make this change; the message says why, for the operator. */
export class MembershipError extends Error {
  override name = "MembershipError";
  constructor(
    readonly reason: MembershipCode,
    message: string,
  ) {
    super(message);
  }
}

/** All: @throws MembershipError; QueueError no-leader, no-quorum, removed, idempotency-mismatch */
export interface MemberChanges {
  /** A learner, unless it is a member already: then its address is brought up to date. */
  add(
    member: MemberIn,
    idempotency: IdempotencyScope | null,
  ): Promise<{
    readonly member: ClusterMemberView;
    /** It was none before. */
    readonly added: boolean;
    readonly replayed: boolean;
  }>;
  /** Resolves once it is out for good; again for one that was removed a moment ago. */
  remove(id: string): Promise<void>;
  /** Resolves once `to` leads. */
  transfer(
    to: string,
    idempotency: IdempotencyScope | null,
  ): Promise<{ readonly leaderId: string; readonly replayed: boolean }>;
}

export interface ClusterMembersOptions {
  readonly consensus: Consensus;
  readonly keyed: KeyedCalls;
  readonly cluster: () => Promise<ClusterView>;
  readonly requestTimeoutMs: Millis;
}

export class ClusterMembers implements MemberChanges {
  readonly #o: ClusterMembersOptions;

  constructor(options: ClusterMembersOptions) {
    this.#o = options;
  }

  async add(
    member: MemberIn,
    idempotency: IdempotencyScope | null,
  ): ReturnType<MemberChanges["add"]> {
    const act = async () => {
      const added = (await this.#ask("members.add", member)) === true;
      return { kind: "member", member: await this.#view(member), added } as const;
    };
    if (idempotency === null) {
      const { member: view, added } = await act();
      return { member: view, added, replayed: false };
    }
    const { value, replayed } = await this.#o.keyed.once(idempotency, "member", act);
    return { member: value.member, added: value.added, replayed };
  }

  async remove(id: string): Promise<void> {
    await this.#ask("members.remove", { id });
  }

  async transfer(
    to: string,
    idempotency: IdempotencyScope | null,
  ): ReturnType<MemberChanges["transfer"]> {
    const act = async () => {
      await this.#ask("members.transfer", { id: to });
      return { kind: "transfer", leader: to } as const;
    };
    if (idempotency === null) return { leaderId: (await act()).leader, replayed: false };
    const { value, replayed } = await this.#o.keyed.once(idempotency, "transfer", act);
    return { leaderId: value.leader, replayed };
  }

  /** After a read, which fails in a user's words as soon as a quorum is missing. */
  async #ask(method: string, body: unknown): Promise<unknown> {
    const { consensus, requestTimeoutMs } = this.#o;
    try {
      await consensus.linearize(requestTimeoutMs);
      return await consensus.call(method, body, requestTimeoutMs);
    } catch (error) {
      const code = error instanceof CallError ? error.reason : null;
      const known = MEMBERSHIP_CODES.find((reason) => reason === code);
      if (known !== undefined && error instanceof CallError)
        throw new MembershipError(known, error.message);
      throw asQueueError(error);
    }
  }

  /** As the leader sees it now; what was asked for, should it be gone already. */
  async #view({ id, url }: MemberIn): Promise<ClusterMemberView> {
    const { members } = await this.#o.cluster();
    return (
      members.find((member) => member.id === id) ?? {
        id: id as NodeId,
        url,
        role: "learner",
        voter: false,
        match_index: null,
        lag: null,
        reachable: false,
        last_contact_ms: null,
        round_trip_ms: null,
        replication: null,
        waiting: null,
        replaces: null,
      }
    );
  }
}
