/** What the clients of a chaos run know: what was acknowledged, and what must therefore hold ever after. */

export interface Acknowledged {
  readonly id: string;
  readonly name: string;
  /** Somebody asked for a cancel, answered or not. */
  cancelSent: boolean;
  /** When the first cancel was answered 204; monotonic ms. */
  cancelledAt: number | null;
  /** Somebody asked for it to run again: what it ended with no longer holds. */
  retried: boolean;
  /** The fence whose completion was answered ok. */
  completedBy: number | null;
  /** Newest version that a linearizable read answered. */
  seenVersion: number;
}

export interface History {
  /** Ids that a client sent, acknowledged or not. */
  readonly attempted: Set<string>;
  readonly tasks: Map<string, Acknowledged>;
  readonly violations: string[];
  /** Fence → the task and worker it was given to. */
  readonly fences: Map<number, string>;
  /** Keyed submits that were never answered: each may have made one task that nobody knows. */
  openKeys: number;
  /** A clear of Cancelled tasks was asked for: those may be gone. */
  clearedCancelled: boolean;
  faults: number;
  reads: number;
  broken(what: string): void;
  acknowledge(id: string, name: string): void;
  claimed(id: string, worker: string, lease: { fence: number; attempt: number }): void;
  /** A completion that was sent at `sentAt` was accepted. */
  completed(id: string, fence: number, sentAt: number): void;
  random(draw: (below: number) => number): Acknowledged | null;
  summary(): Record<string, number>;
}

export function newHistory(): History {
  const order: Acknowledged[] = [];
  const newestFence = new Map<string, number>();
  const history: History = {
    attempted: new Set(),
    tasks: new Map(),
    violations: [],
    fences: new Map(),
    openKeys: 0,
    clearedCancelled: false,
    faults: 0,
    reads: 0,
    broken: (what) => void history.violations.push(what),
    acknowledge: (id, name) => {
      if (history.tasks.has(id)) return;
      const task: Acknowledged = {
        id,
        name,
        cancelSent: false,
        cancelledAt: null,
        retried: false,
        completedBy: null,
        seenVersion: 0,
      };
      history.tasks.set(id, task);
      order.push(task);
    },
    claimed: (id, worker, { fence, attempt }) => {
      const holder = `${id} attempt ${attempt} by ${worker}`;
      const other = history.fences.get(fence);
      if (other !== undefined && other !== holder)
        history.broken(`fence ${fence} was given to ${other} and to ${holder}`);
      history.fences.set(fence, holder);
      newestFence.set(id, Math.max(fence, newestFence.get(id) ?? 0));
    },
    completed: (id, fence, sentAt) => {
      const task = history.tasks.get(id);
      const newest = newestFence.get(id) ?? 0;
      if (fence < newest)
        history.broken(`${id} completed by fence ${fence} after ${newest} was given`);
      if (task === undefined) return;
      if (task.cancelledAt !== null && task.cancelledAt < sentAt)
        history.broken(`${id} was completed after its cancel had been answered`);
      if (task.completedBy !== null && task.completedBy !== fence && !task.retried)
        history.broken(`${id} was completed by the fences ${task.completedBy} and ${fence}`);
      task.completedBy = fence;
    },
    random: (draw) => {
      if (order.length === 0) return null;
      // Half of the time one of the newest: those are the ones that still move.
      const span = draw(2) === 0 ? Math.min(50, order.length) : order.length;
      return order[order.length - 1 - draw(span)] ?? null;
    },
    summary: () => ({
      attempted: history.attempted.size,
      acknowledged: history.tasks.size,
      cancelled: order.filter(({ cancelledAt }) => cancelledAt !== null).length,
      retried: order.filter(({ retried }) => retried).length,
      claims: history.fences.size,
      completions: order.filter(({ completedBy }) => completedBy !== null).length,
      reads: history.reads,
      faults: history.faults,
      broken: history.violations.length,
    }),
  };
  return history;
}
