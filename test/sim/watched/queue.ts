/** A member's queue as its executor pool uses it: what the pool is answered is part of the history, like what any client is. */
import type { ExecutorQueue } from "../../../src/executor/queue-port.ts";
import type { FlotillaQueue } from "../../../src/queue/queue.ts";
import type { History } from "../history.ts";
import type { NodeClock } from "../world.ts";

export function watchedQueue(
  queue: FlotillaQueue,
  history: History,
  clock: NodeClock,
): ExecutorQueue {
  return {
    claim: async (claim, waitMs, signal) => {
      const answer = await queue.claim(claim, waitMs, signal);
      if (clock.alive) history.claimed(claim, answer.tasks);
      return answer;
    },
    heartbeat: async (workerId, principal, leases, info) => {
      const since = history.begin();
      const begunAt = history.now;
      const answer = await queue.heartbeat(workerId, principal, leases, info);
      if (clock.alive) history.heartbeat(workerId, leases, answer.verdicts, since, begunAt);
      return answer;
    },
    end: async (workerId, principal, items, idempotency) => {
      const answers = await queue.end(workerId, principal, items, idempotency);
      for (const [i, item] of items.entries())
        if (clock.alive && answers[i] === "ok" && item.end.kind === "complete")
          history.completed(item);
      return answers;
    },
    report: (workerId, principal, items) => queue.report(workerId, principal, items),
    onLease: (listener) => queue.onLease(listener),
  };
}
