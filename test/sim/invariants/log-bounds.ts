/**
 * I10: compacted ≤ applied ≤ commit ≤ last, and what a member takes for its log is what it wrote: no entry more, after
 * a restart and after a snapshot too.
 */
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class LogBounds implements Invariant {
  readonly #sim: Simulation;
  /** What was wrong at the last look: state, log and core change one after the other, in writes and installs. */
  #suspects: ReadonlyMap<SimNode, string> = new Map();
  /** A snapshot took the place of their logs, and they have heard nothing since: the next append would cut what is left of a log. */
  readonly #fresh = new Set<SimNode>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  installed(node: SimNode): void {
    this.#fresh.add(node);
  }

  heard(node: SimNode): void {
    if (this.#fresh.size === 0 || !this.#fresh.has(node)) return;
    // The state is there before the core is told.
    if ((node.replica?.core?.commit ?? 0) < node.startedAt) return;
    this.#fresh.delete(node);
    const wrong = wrongAt(node);
    if (wrong !== null) this.#sim.fail("I10", `${node.id}, just behind a snapshot: ${wrong}`);
  }

  often(): void {
    const suspects = new Map<SimNode, string>();
    for (const node of this.#sim.nodes) {
      const wrong = wrongAt(node);
      if (wrong === null) continue;
      if (this.#suspects.has(node)) this.#sim.fail("I10", `${node.id}: ${wrong}`);
      suspects.set(node, wrong);
    }
    this.#suspects = suspects;
  }
}

function wrongAt({ up, applied, clock, disk, replica, store }: SimNode): string | null {
  const core = replica?.core ?? null;
  if (!up || clock.still || core === null || store === null) return null;
  if (disk.installing !== null || store.pending > 0) return null;
  const { commit, lastIndex } = core;
  // Before the core has begun there is no log.
  if (lastIndex === 0) return null;
  const compacted = disk.compacted.index;
  if (compacted > applied || applied > commit || commit > lastIndex)
    return `compacted ${compacted}, applied ${applied}, commit ${commit}, last ${lastIndex}`;
  return lastIndex === store.handed.length
    ? null
    : `it takes its log to end at ${lastIndex}, and wrote up to ${store.handed.length}`;
}
