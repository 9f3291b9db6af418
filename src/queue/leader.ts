/**
 * The leader's side of the queue: claims, leases, workers, maintenance. Every member has one and serves
 * the calls; it works only while its member leads and its state is current, and forgets everything
 * when that ends.
 */
import type { NodeId } from "../raft/types.ts";
import {
  type Consensus,
  ConsensusError,
  type ConsensusStatus,
  type Leadership,
} from "../replica/consensus.ts";
import type { Clock, Log, Millis } from "../replica/ports.ts";
import { memberViews } from "./cluster-view.ts";
import { encodeCommand } from "./command-codec.ts";
import type { Command, Signal } from "./commands.ts";
import { Dispatcher } from "./dispatcher.ts";
import { LeaseTable } from "./leases.ts";
import { Maintenance } from "./maintenance.ts";
import {
  type DirectiveBody,
  type HeartbeatReply,
  type OfferReply,
  type RefusedBody,
  parseClaimRef,
  parseDirectiveBody,
  parseHeartbeat,
  parseOffers,
} from "./messages.ts";
import type { Proposer } from "./proposals.ts";
import type { WorkerView } from "./service.ts";
import type { TaskState } from "./state.ts";
import type { ClaimedTask, ClaimRef, ClusterMemberView } from "./types.ts";
import { VersionRaiser } from "./version-raiser.ts";
import { type LocalWorker, WorkerTable } from "./worker-table.ts";

/**
 * What a leader proposes by itself waits behind everybody's commands, and under overload longer than a request may: given up
 * there, it would do nothing when its turn comes (T2), and its repeat would stand at the end of the queue again. So it
 * waits for much longer, and for no other leadership: while this one lasts only claims overtake it in the queue, so
 * few of its member's answers are kept meanwhile.
 */
const OWN_TIMEOUT_MS: Millis = 60_000;

export interface LeaderSideOptions {
  readonly consensus: Consensus;
  readonly state: TaskState;
  readonly clock: Clock;
  readonly log: Log;
  readonly proposer: Proposer;
  readonly requestTimeoutMs: Millis;
  readonly contactTimeoutMs: Millis;
}

export class LeaderSide {
  readonly #o: LeaderSideOptions;
  readonly #dispatcher: Dispatcher;
  readonly #leases: LeaseTable;
  readonly #maintenance: Maintenance;
  readonly #versions: VersionRaiser;
  readonly #workers: WorkerTable;
  /** Members that have claims parked here: told when a worker shall stop asking. */
  readonly #owners = new Set<NodeId>();
  /** Term in which it works, or null. */
  #term: number | null = null;

  constructor(options: LeaderSideOptions) {
    this.#o = options;
    const { clock, consensus, log, proposer, requestTimeoutMs, state } = options;
    const logNow = (): Millis => consensus.logNow();
    this.#workers = new WorkerTable(clock);
    this.#dispatcher = new Dispatcher({
      state,
      clock,
      log,
      propose: (command, weight) =>
        consensus.submit(command, {
          timeoutMs: requestTimeoutMs,
          weight,
          awaitedElsewhere: true,
        }),
      owners: {
        known: (owner, { worker_id, request_id, principal }) => {
          const body: ClaimRef = { worker_id, request_id, principal };
          consensus.notify(owner, "claim.known", body);
        },
        returned: (owner, { worker_id, request_id, principal }) => {
          const body: ClaimRef = { worker_id, request_id, principal };
          consensus.notify(owner, "claim.returned", body);
        },
        refused: (owner, { worker_id, request_id, principal }, code, detail) => {
          const body: RefusedBody = { worker_id, request_id, principal, code, detail };
          consensus.notify(owner, "claim.refused", body);
        },
      },
    });
    const own = { timeoutMs: OWN_TIMEOUT_MS, thisLeadership: true };
    const done = async (command: Command, weight: number): Promise<{ readonly more: boolean }> =>
      (await proposer.propose(command, "done", { weight, ...own })).value;
    // Proposed again every second without asking after the one before; it can wait until an overload is over.
    const raise = (command: Command, weight: number): Promise<unknown> =>
      proposer.propose(command, "done", { weight });
    this.#leases = new LeaseTable({ state, clock, log, logNow, propose: done });
    this.#maintenance = new Maintenance({ state, clock, log, logNow, propose: done });

    const versions = (): ConsensusStatus["machineVersions"] => consensus.status().machineVersions;
    this.#versions = new VersionRaiser({ clock, log, versions, propose: raise });

    consensus.serve("claim.offer", (body, from) => this.#offered(body, from));
    consensus.serve("claim.withdraw", async (body, from) => {
      this.#dispatcher.withdraw(parseClaimRef(body), from);
      return null;
    });
    consensus.serve("claim.abandoned", async (body, from) => {
      const term = this.#leading();
      const ref = parseClaimRef(body);
      // Whoever says so applied it; here it may be on its way to a slow disk.
      if (this.#o.state.claimAnswer(ref) === null) await consensus.linearize(requestTimeoutMs);
      if (this.#term !== term) throw new ConsensusError("not-leader", "this member does not lead");
      this.#dispatcher.abandon(ref, from, (tasks) => this.#giveBack(ref, tasks));
      // "Yes" would have the member give it back itself: at any time, and whoever was told of it by then.
      return false;
    });
    consensus.serve("lease.heartbeat", (body) => this.#heartbeat(body));
    consensus.serve("worker.list", () => this.#listWorkers());
    consensus.serve("worker.direct", (body) => this.#direct(body));
    consensus.serve("cluster.members", () => this.#members());
    consensus.onSeal((batch, index, add) => this.#dispatcher.seal(batch, index, add));
  }

  /** Claims parked, leases held; for metrics. */
  counts(): { readonly offers: number; readonly leases: number } {
    return { offers: this.#dispatcher.size, leases: this.#leases.size };
  }

  onLeadership({ role, term, active }: Leadership): void {
    const works = role === "leader" && active;
    if (works && this.#term === term) return;
    if (this.#term !== null) this.stop();
    if (!works) return;
    this.#term = term;
    this.#leases.start(term);
    this.#dispatcher.start();
    this.#maintenance.start(term);
    this.#versions.start(term);
  }

  applied(signals: readonly Signal[], now: Millis): void {
    if (this.#term === null) return;
    this.#leases.applied(signals, now);
    this.#dispatcher.applied(signals);
    this.#maintenance.look();
  }

  /** Leadership is over, or the member stops: everything is forgotten. */
  stop(): void {
    this.#term = null;
    this.#leases.stop();
    this.#dispatcher.stop();
    this.#maintenance.stop();
    this.#versions.stop();
    this.#workers.clear();
    this.#owners.clear();
  }

  #leading(): number {
    if (this.#term === null) throw new ConsensusError("not-leader", "this member does not lead");
    return this.#term;
  }

  async #offered(body: unknown, from: NodeId): Promise<OfferReply> {
    const term = this.#leading();
    const { offers } = parseOffers(body);
    if (this.#dispatcher.givesBack) {
      await this.#dispatcher.settled(offers.map(({ claim }) => claim));
      if (this.#term !== term) throw new ConsensusError("not-leader", "this member does not lead");
    }
    this.#owners.add(from);
    const answers = offers.map(({ claim, ttl_ms, directive: told, info }) => {
      const directive = this.#workers.claimed(claim, told, info);
      if (directive !== "ok") {
        const known = this.#dispatcher.isKnown(claim, from);
        const state = known ? ("known" as const) : ("parked" as const);
        return { state, directive, underWay: false };
      }
      const state = this.#dispatcher.offer(claim, from, ttl_ms);
      return { state, directive, underWay: this.#dispatcher.isUnderWay(claim) };
    });
    return { term, answers };
  }

  /**
   * Releases what a request got that nobody waits for; a repeat waits for the outcome. Logged in this leadership or never: the
   * next leader knows nothing of it, and tells whoever repeats the request of these tasks.
   */
  async #giveBack(
    { worker_id, principal }: ClaimRef,
    tasks: readonly ClaimedTask[],
  ): Promise<void> {
    const { consensus, log } = this.#o;
    const items = tasks.map(({ id, lease: { attempt, fence } }) => ({
      task_id: id,
      attempt,
      fence,
      end: { kind: "release" } as const,
    }));
    try {
      await consensus.submit(encodeCommand({ type: "end", worker_id, principal, items }), {
        timeoutMs: OWN_TIMEOUT_MS,
        weight: items.length,
        thisLeadership: true,
      });
    } catch (error) {
      log.warn("tasks claimed for nobody could not be handed back; their leases will expire", {
        worker: worker_id,
        tasks: items.length,
        error: String(error),
      });
    }
  }

  /**
   * A deposed leader must never say `ok` (T6): the read index comes from a quorum round that begins now, and
   * waiting for it to be applied makes sure that the claim of a lease is known here even if another
   * member applied it first.
   */
  async #heartbeat(body: unknown): Promise<HeartbeatReply> {
    const term = this.#leading();
    const arrivedAt = this.#o.clock.monotonic();
    const { worker_id, principal, leases, info, directive: told } = parseHeartbeat(body);
    this.#leases.arrived(worker_id, principal, leases, arrivedAt);
    await this.#o.consensus.linearize(this.#o.requestTimeoutMs);
    const settled = await this.#leases.settled(leases);
    if (this.#term !== term) throw new ConsensusError("not-leader", "this member does not lead");
    if (!settled)
      throw new ConsensusError(
        "timeout",
        "whether a lease that was silent is over is not known yet",
      );
    const verdicts = this.#leases.heartbeat(worker_id, principal, leases, arrivedAt);
    const directive = this.#workers.beat(worker_id, principal, info, told);
    return { verdicts, directive };
  }

  async #listWorkers(): Promise<readonly WorkerView[]> {
    this.#leading();
    return this.#workers.views(this.#o.state.running());
  }

  /** What this member knows without asking anybody: all there is on the leader, the leases on the others. */
  ownWorkers(local: LocalWorker | null): readonly WorkerView[] {
    return this.#workers.views(this.#o.state.running(), local);
  }

  async #direct(body: unknown): Promise<boolean> {
    this.#leading();
    const { worker_id, directive } = parseDirectiveBody(body);
    if (!this.#workers.has(worker_id)) {
      // Known by what it runs alone: it was not heard of since this leadership began.
      const leases = this.#o.state.running().filter(({ worker }) => worker === worker_id);
      if (leases.length === 0) return false;
      for (const { principal } of leases) this.#workers.beat(worker_id, principal, null, directive);
    }
    this.#workers.direct(worker_id, directive);
    if (directive === "ok") return true;
    this.#dispatcher.withdrawWorker(worker_id);
    const told: DirectiveBody = { worker_id, directive };
    for (const owner of this.#owners) this.#o.consensus.notify(owner, "claim.directive", told);
    return true;
  }

  async #members(): Promise<readonly ClusterMemberView[]> {
    const status = this.#o.consensus.status();
    if (status.role !== "leader")
      throw new ConsensusError("not-leader", "this member does not lead");
    return memberViews(status, this.#o.contactTimeoutMs);
  }
}
