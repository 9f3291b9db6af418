/**
 * Q4, Q6: an end is answered `ok` to who held the lease, and to nobody else, also when it comes again. It comes again only
 * where the log has such an end: what a leader gave up, or a start took back, was ended by no worker.
 */
import type { Answer, Command, Signal } from "../../../src/queue/commands.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf, Judged } from "../commands.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

type End = Extract<Command, { readonly type: "end" }>;
type Verdicts = Extract<
  Extract<Answer, { readonly ok: true }>["value"],
  { readonly type: "ended" }
>["items"];

export class EndedAgain implements Invariant {
  readonly #sim: Simulation;
  /** Who was granted a lease, by fence. */
  readonly #holders: Map<number, { readonly worker: string; readonly principal: string }> =
    new Map();
  /** Fences of leases that ended in an entry without an end of them by anybody. */
  readonly #endedByNobody = new Set<number>();
  readonly #judged = new Judged();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  logged(
    entry: CommittedEntry,
    answers: readonly Answer[],
    signals: readonly Signal[],
    node: SimNode,
  ): void {
    const commands = commandsOf(entry);
    for (const signal of signals)
      if (signal.type === "claimed") {
        const { worker_id: worker, principal } = signal.claim;
        this.#holders.set(signal.task.lease.fence, { worker, principal });
      }
    const named = new Set<number>();
    for (const [i, asked] of commands.entries()) {
      if (asked.type !== "end") continue;
      for (const { fence } of asked.items) named.add(fence);
      const answer = answers[i];
      const request = entry.requests[i];
      if (answer?.ok !== true || answer.value.type !== "ended" || request === undefined) continue;
      // Under a key, what is told was decided with the first of them.
      if (this.#judged.add(request) && asked.idem === undefined && !node.isSuspect)
        this.#judge(asked, answer.value.items);
    }
    if (node.isSuspect) return;
    for (const signal of signals)
      if (signal.type === "lease-end" && !named.has(signal.fence))
        this.#endedByNobody.add(signal.fence);
  }

  #judge({ worker_id, principal, items }: End, verdicts: Verdicts): void {
    for (const [at, { task_id, fence, end }] of items.entries()) {
      const said = verdicts[at];
      if (said !== "ok" && said !== "cancelled") continue;
      const holder = this.#holders.get(fence);
      if (holder !== undefined && (holder.worker !== worker_id || holder.principal !== principal))
        this.#fail(
          `the ${end.kind} of ${task_id} by ${worker_id} of ${principal} is answered ${said}, fence ${fence} is of ${holder.worker} of ${holder.principal}`,
        );
      // Who gives back what is taken back already is told that it is so.
      if (said === "ok" && end.kind !== "release" && this.#endedByNobody.has(fence))
        this.#fail(
          `the ${end.kind} of ${task_id} under fence ${fence} is said to count, and nobody had ended it when it was over`,
        );
    }
  }

  #fail(what: string): void {
    this.#sim.fail("Q4", what);
  }
}
