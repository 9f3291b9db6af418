/**
 * Q7: who comes due first is ready first; who is claimed comes first. Of the tasks of all queues and names that a claim asked for, and that were ready before
 * an entry, none is left behind that comes before one that the claim took: higher priority first, then who became ready
 * first. Looks now and then, since it reads all that is ready.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { Claim } from "../../../src/queue/types.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
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

  logged(
    entry: CommittedEntry,
    _answers: readonly Answer[],
    signals: readonly Signal[],
    { machine }: SimNode,
  ): void {
    const { index } = entry;
    const [only, ...more] = commandsOf(entry);
    if (only?.type === "due" && more.length === 0) this.#dueInOrder(index, signals, machine);
    if (this.#ready.length === 0) return;
    const touched = new Set<string>();
    const claimed = new Map<string, Claim>();
    for (const signal of signals) {
      if (signal.type === "cleared") return;
      if (signal.type === "changed") touched.add(signal.id);
      if (signal.type === "claimed") claimed.set(signal.task.id, signal.claim);
    }
    const left = this.#ready.filter(({ id }) => !touched.has(id) && !claimed.has(id));
    for (const one of this.#ready) {
      const claim = claimed.get(one.id);
      if (claim === undefined) continue;
      for (const other of left)
        if (mightHave(claim, one, other) && comesBefore(other, one))
          this.#sim.fail(
            "Q7",
            `${one.id} was claimed at ${index} before ${other.id}: ${JSON.stringify([one, other])}`,
          );
    }
    this.#ready = [];
  }

  /** They became ready in the order in which the machine tells of them. */
  #dueInOrder(index: number, signals: readonly Signal[], machine: SimNode["machine"]): void {
    let before = 0;
    for (const signal of signals) {
      if (signal.type !== "changed" || signal.from !== "Pending" || signal.to !== "Pending")
        continue;
      const { run_at = before } = machine?.task(signal.id) ?? {};
      if (run_at < before)
        this.#sim.fail(
          "Q7",
          `${signal.id}, due at ${run_at}, becomes ready at ${index} behind what was due at ${before}`,
        );
      before = run_at;
    }
  }
}

/** Whether whoever claimed `one` asked as much for `other`; a star takes what it takes when nothing is left by name. */
function mightHave({ queues, names }: Claim, one: Ready, other: Ready): boolean {
  if (other.queue === one.queue && other.name === one.name) return true;
  if (queues?.includes(other.queue) === false) return false;
  return names === null || (names.includes(one.name) && names.includes(other.name));
}

function comesBefore(a: Ready, b: Ready): boolean {
  return a.priority !== b.priority ? a.priority > b.priority : a.ready_seq < b.ready_seq;
}
