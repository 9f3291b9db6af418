/**
 * A member's task machine as its driver uses it: each apply is an effect of the process, entry by entry where nobody has applied
 * it before, and what came of it is shown to the rules and the ledger.
 */
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { CommittedEntry, RequestAnswer, StateMachine } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";

interface Process {
  /** False once it is dead: nothing that it does happens any more. */
  readonly effect: () => boolean;
  /** Runs what may commit as a part of the process. */
  readonly inside: (run: () => void) => void;
}

export function watchedMachine(
  machine: TaskMachine,
  node: SimNode,
  sim: Simulation,
  { effect, inside }: Process,
): StateMachine {
  let signals: readonly Signal[] = [];
  machine.onSignals((given) => {
    signals = given;
  });
  const apply = (entries: readonly CommittedEntry[]): readonly RequestAnswer[] => {
    signals = [];
    const given = machine.apply(entries.map((entry) => sim.oddChains.seen(node, entry)));
    if (node.isOdd) sim.oddChains.went(machine, entries);
    // Its state was lost, and it goes by the first entries of another log than the rules know.
    if (sim.isStranger(node)) return given;
    let at = 0;
    for (const entry of entries) {
      const answers = given
        .slice(at, at + entry.requests.length)
        .map(({ answer }) => answer as Answer);
      at += entry.requests.length;
      const first = entry.index > sim.appliedMax;
      if (first) {
        sim.appliedMax = entry.index;
        if (entry.requests.length === 0) sim.memberships(node.store?.membershipAt(entry.index));
      }
      sim.trace.mark(`${node.id} applied ${entry.index}`);
      if (first) for (const rule of sim.watching.logged) rule.logged(entry, answers, signals, node);
      for (const rule of sim.watching.applied) rule.applied(node, entry, answers);
    }
    return given;
  };
  return {
    applied: () => machine.applied(),
    logTime: () => machine.logTime(),
    flush: () => {
      if (!effect()) throw new Error("killed (injected)");
      inside(() => machine.flush());
    },
    machineVersion: () => machine.machineVersion(),
    chainAt: (index) => machine.chainAt(index),
    apply: (entries) => {
      const answers: RequestAnswer[] = [];
      // One by one where it is the first time, so that a signal is known to be of that entry.
      let piece: CommittedEntry[] = [];
      const flush = (): void => {
        if (piece.length === 0) return;
        if (!effect()) throw new Error("killed (injected)");
        const [entry] = piece;
        if (entry !== undefined && entry.index > sim.appliedMax)
          for (const rule of sim.watching.applying) rule.applying(node, entry);
        answers.push(...apply(piece));
        piece = [];
      };
      for (const entry of entries) {
        const first = entry.index > sim.appliedMax;
        if (first) flush();
        piece.push(entry);
        if (first || entry.index % sim.options.hashEvery === 0) flush();
      }
      flush();
      return answers;
    },
  };
}
