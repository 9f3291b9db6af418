/**
 * Q4: a claim that is repeated is the same claim, and takes nothing a second time, as long as it is known: for so long in
 * log time, and so many claims of its worker.
 */
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { CLAIM_KEPT_MS, type Granted, type LedgerTask, nameOf } from "../ledger.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

/** Until its worker has made so many more: an old offer may come late on the network, and is released. */
const CLAIMS_KEPT = 64;

interface Taken {
  readonly index: number;
  readonly logTime: number;
  /** Of its worker's claims that took something. */
  readonly number: number;
}

export class ClaimedOnce implements Invariant {
  readonly #sim: Simulation;
  /** Where each claim, by worker and request, took its tasks. */
  readonly #taken = new Map<string, Taken>();
  /** Claims of each worker that took something. */
  readonly #claimsOf = new Map<string, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  granting(_task: LedgerTask | undefined, { claim }: Granted, { index }: CommittedEntry): void {
    const name = nameOf(claim);
    const before = this.#taken.get(name);
    if (before?.index === index) return;
    const { logTime } = this.#sim.ledger;
    const made = this.#claimsOf.get(claim.worker_id) ?? 0;
    if (
      before !== undefined &&
      logTime - before.logTime < CLAIM_KEPT_MS &&
      made - before.number < CLAIMS_KEPT
    )
      this.#sim.fail(
        "Q4",
        `the claim ${name} took tasks at ${before.index}, and again at ${index}`,
      );
    const number = made + 1;
    this.#claimsOf.set(claim.worker_id, number);
    this.#taken.set(name, { index, logTime, number });
  }
}
