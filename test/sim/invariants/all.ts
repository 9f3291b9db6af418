/** Every rule that is checked in every run. The ledger, which judges nothing, comes before them. */
import type { Simulation } from "../simulation.ts";
import { AsLogged } from "./as-logged.ts";
import { AskedFor } from "./asked-for.ts";
import { Bounds } from "./bounds.ts";
import { Builds } from "./builds.ts";
import { Budgets } from "./budgets.ts";
import { CancelAnswers } from "./cancel-answers.ts";
import { Charges } from "./charges.ts";
import { CheckedCommits } from "./checked-commits.ts";
import { ClaimedNames } from "./claimed-names.ts";
import { ClaimedOnce } from "./claimed-once.ts";
import { Commitment } from "./commitment.ts";
import { Counters } from "./counters.ts";
import { CoreLimitsHold } from "./core-limits.ts";
import { OneKeyOneTask } from "./idempotency.ts";
import { OneIdOneBody } from "./one-id.ts";
import { Restarts } from "./restarts.ts";
import { Retention } from "./retention.ts";
import { EndedAgain } from "./ended-again.ts";
import { ElectionTimer } from "./election-timer.ts";
import { Fences } from "./fences.ts";
import { FirstAnswers } from "./first-answers.ts";
import { FullPeriods } from "./full-periods.ts";
import { GivenUp } from "./given-up.ts";
import { HandedClaims } from "./handed-claims.ts";
import { HeardQuorum } from "./heard-quorum.ts";
import { Heartbeats } from "./heartbeats.ts";
import type { Invariant } from "./invariant.ts";
import { LeaderSpeaks } from "./leader-speaks.ts";
import { LeaseAnswers } from "./lease-answers.ts";
import { LeasePeriod } from "./lease-period.ts";
import { LegalSteps } from "./legal-steps.ts";
import { Linearizability } from "./linearizability.ts";
import { LogBounds } from "./log-bounds.ts";
import { LogMatching } from "./log-matching.ts";
import { LogTime } from "./log-time.ts";
import { MatchesAreDurable } from "./matches-are-durable.ts";
import { MembersAsk } from "./members-ask.ts";
import { Memberships } from "./memberships.ts";
import { NeverBack } from "./never-back.ts";
import { NotEarly } from "./not-early.ts";
import { NoSelfTruncation } from "./no-self-truncation.ts";
import { OddClock } from "./odd-clock.ts";
import { Once } from "./once.ts";
import { OneLeaderPerTerm } from "./one-leader-per-term.ts";
import { Order } from "./order.ts";
import { Overdue } from "./overdue.ts";
import { OwnAnswers } from "./own-answers.ts";
import { PromisesAreDurable } from "./promises-are-durable.ts";
import { RefusedForGood } from "./refused-for-good.ts";
import { Replay } from "./replay.ts";
import { SameState } from "./same-state.ts";
import { SlowDisk } from "./slow-disk.ts";
import { SnapshotMembership } from "./snapshot-membership.ts";
import { StickyLeader } from "./sticky-leader.ts";
import { Terms } from "./terms.ts";
import { TransferHoldsWrites } from "./transfer-holds-writes.ts";
import { Votes } from "./votes.ts";

export const ALL_INVARIANTS: readonly ((sim: Simulation) => Invariant)[] = [
  (sim) => new AskedFor(sim),
  (sim) => new LegalSteps(sim),
  (sim) => new ClaimedOnce(sim),
  (sim) => new Fences(sim),
  (sim) => new NotEarly(sim),
  (sim) => new GivenUp(sim),
  (sim) => new LeaseAnswers(sim),
  (sim) => new EndedAgain(sim),
  (sim) => new CancelAnswers(sim),
  (sim) => new AsLogged(sim),
  (sim) => new Budgets(sim),
  (sim) => new Linearizability(sim),
  (sim) => new FirstAnswers(sim),
  (sim) => new HandedClaims(sim),
  (sim) => new Heartbeats(sim),
  (sim) => new OneLeaderPerTerm(sim),
  (sim) => new NeverBack(sim),
  (sim) => new PromisesAreDurable(sim),
  (sim) => new LogMatching(sim),
  (sim) => new Commitment(sim),
  (sim) => new NoSelfTruncation(sim),
  (sim) => new MatchesAreDurable(sim),
  (sim) => new Memberships(sim),
  (sim) => new Terms(sim),
  (sim) => new ElectionTimer(sim),
  (sim) => new StickyLeader(sim),
  (sim) => new Votes(sim),
  (sim) => new CheckedCommits(sim),
  (sim) => new SlowDisk(sim),
  (sim) => new HeardQuorum(sim),
  (sim) => new LeaderSpeaks(sim),
  (sim) => new Charges(sim),
  (sim) => new ClaimedNames(sim),
  (sim) => new TransferHoldsWrites(sim),
  (sim) => new SameState(sim),
  (sim) => new Order(sim),
  (sim) => new OneKeyOneTask(sim),
  (sim) => new OneIdOneBody(sim),
  (sim) => new Once(sim),
  (sim) => new MembersAsk(sim),
  (sim) => new OwnAnswers(sim),
  (sim) => new RefusedForGood(sim),
  (sim) => new SnapshotMembership(sim),
  (sim) => new Counters(sim),
  (sim) => new Bounds(sim),
  (sim) => new CoreLimitsHold(sim),
  (sim) => new LogBounds(sim),
  (sim) => new LeasePeriod(sim),
  (sim) => new FullPeriods(sim),
  (sim) => new LogTime(sim),
  (sim) => new OddClock(sim),
  (sim) => new Overdue(sim),
  (sim) => new Replay(sim),
  (sim) => new Restarts(sim),
  (sim) => new Retention(sim),
  (sim) => new Builds(sim),
];
