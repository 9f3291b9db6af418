/**
 * Q5, T2: a start of a member takes back what its earlier starts had claimed, and nothing else; and what an earlier start
 * had asked is not carried out any more once the log holds something of a later one.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { commandsOf } from "../commands.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

interface Start {
  readonly member: string;
  readonly boot: number;
}

export class Restarts implements Invariant {
  readonly #sim: Simulation;
  /** Who runs what was claimed, by fence; null: a worker outside. */
  readonly #runs = new Map<number, Start | null>();
  /** Newest start of each member of which the log holds a command. */
  readonly #newest = new Map<string, number>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  begins(machine: TaskMachine): void {
    for (const { fence, local } of machine.running()) this.#runs.set(fence, local);
  }

  logged(entry: CommittedEntry, answers: readonly Answer[], signals: readonly Signal[]): void {
    const { index, members, requests } = entry;
    // Who comes back under the id of one that was removed counts from one again.
    if (members !== undefined)
      for (const id of this.#newest.keys())
        if (!members.some((member) => member === id)) this.#newest.delete(id);
    for (const [i, { member, boot, seq }] of requests.entries()) {
      const newest = Math.max(this.#newest.get(member) ?? 0, boot);
      this.#newest.set(member, newest);
      const answer = answers[i];
      if (answer === undefined || (!answer.ok && answer.code === "stale-session")) continue;
      if (boot < newest)
        this.#sim.fail(
          "T2",
          `command ${boot}/${seq} of ${member} is carried out at ${index}, behind one of its start ${newest}`,
        );
    }
    for (const signal of signals)
      if (signal.type === "claimed")
        this.#runs.set(signal.task.lease.fence, signal.claim.local ?? null);
    for (const signal of signals) {
      if (signal.type !== "lease-lost" || signal.reason !== "released") continue;
      const run = this.#runs.get(signal.fence) ?? null;
      const isRight = commandsOf(entry).some(
        (asked) => asked.type === "boot" && asked.member === run?.member && asked.boot > run.boot,
      );
      if (!isRight)
        this.#sim.fail(
          "Q5",
          `${signal.id} is taken back from ${JSON.stringify(run)} at ${index}, and no later start of it says so`,
        );
    }
    for (const signal of signals) if (signal.type === "lease-end") this.#runs.delete(signal.fence);
  }
}
