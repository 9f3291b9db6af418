/**
 * A member that applies one entry differently than the others (T9): a defect of its build or of its memory. The chain of
 * hashes must show it, with or without an audit of the rows; it must say nothing more, and take the state of the others.
 *
 * It sees another seed in one entry, of commands that draw nothing from it. That decides nothing but the chain, so its
 * answers stay right until it is found, and the rules may believe it. Whose state it is that goes on from there (its own,
 * of who takes a snapshot of it, or nobody's any more, when a loss of power took it) is known by the chain itself.
 */
import { decodeCommand } from "../../src/queue/command-codec.ts";
import type { Command } from "../../src/queue/commands.ts";
import type { TaskMachine } from "../../src/queue/machine.ts";
import type { CommittedEntry } from "../../src/replica/ports.ts";
import { votes } from "./membership.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

/** Commands that no randomness goes into. */
const CALM: ReadonlySet<Command["type"]> = new Set(["submit", "claim", "cancel", "confirm", "due"]);

/** Chooses who will do so: one voter of three or more, once in a run. Always false, since it is counted when it happens. */
export function applyOddly(sim: Simulation, prng: Prng): boolean {
  const { membership, nodes } = sim;
  if (membership === null || sim.oddChains.due !== null) return false;
  const { configuration } = membership;
  if (configuration.voters.length < 3 || configuration.outgoing.length > 0) return false;
  const able = nodes.filter(({ up, id, machine }) => up && votes(configuration, id) && machine);
  if (able.length > 0) sim.oddChains.due = prng.pick(able);
  return false;
}

export class OddChains {
  readonly #sim: Simulation;
  /** Of every state that followed from the odd one. */
  readonly #chains = new Set<string>();
  /** Who will apply an entry differently. Whoever did stays here: once in a run. */
  due: SimNode | null = null;
  /** The entry that was applied differently. */
  #from: number | null = null;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** What the member makes of an entry that it is about to apply. */
  seen(node: SimNode, entry: CommittedEntry): CommittedEntry {
    if (node !== this.due || this.#from !== null || !this.#sim.mood.wild()) return entry;
    const { requests } = entry;
    const calm = requests.every(({ command }) => CALM.has(decodeCommand(command).type));
    if (requests.length === 0 || !calm || this.#sim.isStranger(node)) return entry;
    // Two that are wrong, each in its way, leave no majority.
    if (this.#sim.nodes.some(({ wasRotten }) => wasRotten)) return entry;
    this.#from = entry.index;
    this.#sim.trace.say(node.id, `applies ${entry.index} differently`);
    this.#sim.faults.count("odd-apply");
    this.#sim.disturbed();
    node.wasRotten = true;
    node.isSuspect = true;
    node.isOdd = true;
    return { ...entry, seed: (entry.seed ^ 1) >>> 0 };
  }

  /** An odd member has applied these; of those before the one that made it odd the chain is the right one. */
  went(machine: TaskMachine, entries: readonly CommittedEntry[]): void {
    for (const { index } of entries) {
      const chain = index < (this.#from ?? 0) ? null : machine.chainAt(index);
      if (chain !== null) this.#chains.add(chain);
    }
  }

  isOdd(machine: TaskMachine): boolean {
    const chain = machine.chainAt(machine.applied().index);
    return chain !== null && this.#chains.has(chain);
  }
}
