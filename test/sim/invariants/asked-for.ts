/**
 * Q2, K1: no task appears that nobody asked for, and none whose submit was refused for good. Not of a submit that went twice: an
 * answer is about one copy, and `RefusedForGood` counts them.
 */
import { decodeCommand } from "../../../src/queue/command-codec.ts";
import { nameOfAsked } from "../commands.ts";
import type { Changed, LedgerTask } from "../ledger.ts";
import type { Told } from "../history.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

export class AskedFor implements Invariant {
  readonly #sim: Simulation;
  /** Commands that were handed over, by member, start and bytes. */
  readonly #asked = new Set<string>();
  /** Tasks of submits that were handed over again, by the member or by the network. */
  readonly #again = new Set<string>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  submitted({ id, disk }: SimNode, command: Uint8Array): void {
    const key = nameOfAsked(id, disk.boot, command);
    if (!this.#asked.has(key)) {
      this.#asked.add(key);
      return;
    }
    const again = decodeCommand(command);
    if (again.type === "submit") for (const task of again.tasks) this.#again.add(task.id);
  }

  changing(_task: LedgerTask | undefined, { id, from }: Changed): void {
    if (from !== null) return;
    const { asked, denied } = this.#sim.history;
    if (!asked.has(id)) this.#sim.fail("Q2", `${id} appeared and nobody asked for it`);
    if (denied.has(id) && !this.#again.has(id))
      this.#sim.fail("K1", `${id} appeared, and its submit was refused`);
  }

  told(told: Told): void {
    if (told.type !== "refused") return;
    for (const { id } of told.tasks)
      if (this.#sim.ledger.tasks.has(id) && !this.#again.has(id))
        this.#sim.fail("K1", `the submit of ${id} was refused (${told.reason}), and is in the log`);
  }
}
