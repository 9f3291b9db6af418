/**
 * Q7: who is claimed comes first. Of the tasks of one queue and name that were ready before an entry, none is left
 * behind that comes before one that the entry took: higher priority first, then who became ready first. Looks
 * now and then, since it reads all that is ready.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

const EVERY = 8;
/** Where rows are written behind, a look commits them: not so often that nothing stays behind any more. */
const SELDOM = 40;

interface Ready {
  readonly id: string;
  readonly queue: string;
  readonly name: string;
  readonly priority: number;
  readonly ready_seq: number;
}

export class Order implements Invariant {
  readonly #sim: Simulation;
  #ready: readonly Ready[] = [];

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  applying({ db, machine }: SimNode, { index }: CommittedEntry): void {
    this.#ready = [];
    const { writeBehind } = this.#sim.options;
    if (index % (writeBehind === 0 ? EVERY : SELDOM) !== 0 || db === null) return;
    machine?.flush();
    this.#ready = db
      .query<Ready, []>(
        "SELECT id, queue, name, priority, ready_seq FROM tasks WHERE status = 0 AND detail = 0",
      )
      .all()
      .filter(({ id }) => this.#sim.ledger.tasks.get(id)?.status === "Pending");
  }

  logged({ index }: CommittedEntry, _answers: readonly Answer[], signals: readonly Signal[]): void {
    if (this.#ready.length === 0) return;
    const touched = new Set<string>();
    const claimed = new Set<string>();
    for (const signal of signals) {
      if (signal.type === "cleared") return;
      if (signal.type === "changed") touched.add(signal.id);
      if (signal.type === "claimed") claimed.add(signal.task.id);
    }
    const taken = this.#ready.filter(({ id }) => claimed.has(id));
    const left = this.#ready.filter(({ id }) => !touched.has(id) && !claimed.has(id));
    for (const one of taken)
      for (const other of left)
        if (other.queue === one.queue && other.name === one.name && comesBefore(other, one))
          this.#sim.fail(
            "Q7",
            `${one.id} was claimed at ${index} before ${other.id}: ${JSON.stringify([one, other])}`,
          );
    this.#ready = [];
  }
}

function comesBefore(a: Ready, b: Ready): boolean {
  return a.priority !== b.priority ? a.priority > b.priority : a.ready_seq < b.ready_seq;
}
