/**
 * When learners become voters (docs/membership.md). They do so by themselves once caught up, but never so that the
 * number of voters becomes even: four voters survive no more losses than three, and need one more for every decision.
 * So a learner waits until a second one is ready, and both enter in one joint change. What its record wishes
 * goes before that rule: to be a voter in any case, or to take another member's place.
 */
import type { Configuration, ConfigurationChange, NodeId } from "../raft/types.ts";

export interface PromotionView {
  readonly configuration: Configuration;
  /** A sentence while a learner cannot be promoted: not there, not caught up; else null. */
  notReady(learner: NodeId): string | null;
  /** It answers at the moment. */
  reachable(member: NodeId): boolean;
  /** Its state is known to be wrong (T9): it answers no client until it has taken another one's. */
  wrong(member: NodeId): boolean;
}

export interface PromotionPlan {
  /** To be made together; empty: nothing is to be done now. */
  readonly changes: readonly ConfigurationChange[];
  /** Why each learner that stays one does. */
  readonly waiting: ReadonlyMap<NodeId, string>;
}

export function planPromotion(view: PromotionView): PromotionPlan {
  const { members } = view.configuration;
  const { changes, waiting } = planned(view);
  const told = [...waiting].map(([id, reason]) => {
    const { replaces } = members[id] ?? {};
    return replaces === undefined || members[replaces] === undefined
      ? ([id, reason] as const)
      : ([
          id,
          `${reason}; once a voter it takes the place of ${replaces}, which is removed`,
        ] as const);
  });
  return { changes, waiting: new Map(told) };
}

function planned(view: PromotionView): PromotionPlan {
  const { configuration } = view;
  const { learners, members } = configuration;
  const waiting = new Map<NodeId, string>();
  if (configuration.outgoing.length > 0) {
    for (const id of learners) waiting.set(id, "another change of the membership is under way");
    return { changes: [], waiting };
  }
  const ready: NodeId[] = [];
  for (const id of learners) {
    const reason = view.notReady(id);
    if (reason === null) ready.push(id);
    else waiting.set(id, reason);
  }

  const voters = new Set(configuration.voters);
  const changes: ConfigurationChange[] = [];
  const promote = (id: NodeId): void => {
    voters.add(id);
    changes.push({ op: "promote", id });
  };
  const isNamed = (id: NodeId): boolean => changes.some((change) => change.id === id);
  const placeOf = (id: NodeId): NodeId | null => {
    const { replaces } = members[id] ?? {};
    return replaces !== undefined && members[replaces] !== undefined ? replaces : null;
  };
  // One change names a member once: of a chain the last link goes first, of a ring any.
  const isBehind = (id: NodeId): boolean => {
    const next = placeOf(id);
    if (next === null || !ready.includes(next)) return false;
    if (changes.some((change) => change.op === "promote" && change.id === next)) return true;
    const path = new Set([id]);
    for (let at: NodeId | null = next; at !== null && ready.includes(at); at = placeOf(at)) {
      if (path.has(at)) return false;
      path.add(at);
    }
    return placeOf(next) !== null || members[next]?.voter === true;
  };
  for (const id of ready) {
    const { voter } = members[id] ?? {};
    const replaced = placeOf(id);
    if (replaced === null && voter !== true) continue;
    // Of some that replace each other in a ring another one did.
    if (isNamed(id)) continue;
    if (replaced !== null && isBehind(id)) {
      waiting.set(id, `caught up; ${replaced} becomes a voter first`);
      continue;
    }
    promote(id);
    if (replaced === null || isNamed(replaced)) continue;
    voters.delete(replaced);
    waiting.delete(replaced);
    changes.push({ op: "remove", id: replaced });
  }
  const wished = changes.length;
  const others = ready.filter((id) => !isNamed(id) && !waiting.has(id));
  // As many as keep the number odd: of an even number of voters one more, of an odd number two.
  const spare = others.length % 2 === (voters.size % 2 === 0 ? 1 : 0) ? 0 : 1;
  for (const id of others.slice(0, others.length - spare)) promote(id);

  const refusal = quorumRefusal([...voters], view);
  if (refusal !== null) {
    for (const id of ready) waiting.set(id, refusal);
    return { changes: [], waiting };
  }
  for (const id of others.slice(others.length - spare)) {
    const size = configuration.voters.length;
    waiting.set(
      id,
      wished === 0 && others.length === 1
        ? `caught up; with it the number of voters would be even (${size + 1}), so it waits for a second learner`
        : "caught up; an even number of voters gains nothing, so it waits for another learner",
    );
  }
  return { changes, waiting };
}

/**
 * A sentence when too few of `voters` answer to decide anything together, or none of those who do has a state that is right:
 * nobody could mend the others then, and the right state would go with the members that leave. Else null.
 */
export function quorumRefusal(
  voters: readonly NodeId[],
  { reachable, wrong }: Pick<PromotionView, "reachable" | "wrong">,
): string | null {
  const needed = Math.floor(voters.length / 2) + 1;
  const silent = voters.filter((id) => !reachable(id));
  const answering = voters.length - silent.length;
  if (answering >= needed) {
    if (voters.some((id) => reachable(id) && !wrong(id))) return null;
    return `of the voters that it would leave, none that answers has a state that is right (${voters.join(", ")})`;
  }
  return `of the ${voters.length} voters that it would leave, ${needed} must answer and ${answering} do (not ${silent.join(", ")})`;
}
