/** Members of a cluster as the API changes them: a list, and what the leader would refuse. */
import {
  type MemberChanges,
  type MemberIn,
  MembershipError,
} from "../../src/queue/cluster-members.ts";
import type { FakeQueue } from "./fake-queue.ts";
import type { ClusterMemberView, IdempotencyScope } from "../../src/queue/types.ts";

export class FakeMembers implements MemberChanges {
  readonly known = new Map<string, MemberIn>();
  readonly calls: { readonly call: string; readonly scope: IdempotencyScope | null }[] = [];
  leader = "n1";
  /** Thrown by the next call. */
  fault: Error | null = null;

  #enter(call: string, scope: IdempotencyScope | null = null): void {
    this.calls.push({ call, scope });
    const { fault } = this;
    this.fault = null;
    if (fault !== null) throw fault;
  }

  constructor(readonly queue: Pick<FakeQueue, "once">) {}

  async add(member: MemberIn, scope: IdempotencyScope | null) {
    const { value, replayed } = await this.queue.once(scope, () => this.#add(member, scope));
    return { ...value, replayed };
  }

  #add(member: MemberIn, scope: IdempotencyScope | null) {
    this.#enter(`add ${member.id} ${member.url}`, scope);
    const added = !this.known.has(member.id);
    this.known.set(member.id, member);
    const view: ClusterMemberView = {
      id: member.id as ClusterMemberView["id"],
      url: member.url,
      role: "learner",
      voter: false,
      match_index: 0,
      lag: 12,
      reachable: false,
      last_contact_ms: null,
      round_trip_ms: null,
      replication: null,
      waiting: "does not answer",
      replaces: member.replaces,
    };
    return { member: view, added };
  }

  async remove(id: string) {
    this.#enter(`remove ${id}`);
    if (!this.known.delete(id)) throw new MembershipError("not-found", `There is no member ${id}.`);
  }

  async transfer(to: string, scope: IdempotencyScope | null) {
    const { value, replayed } = await this.queue.once(scope, () => {
      this.#enter(`transfer ${to}`, scope);
      this.leader = to;
      return { leaderId: to };
    });
    return { ...value, replayed };
  }
}
