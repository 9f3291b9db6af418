/** A member's consensus, as its queue uses it, that tells what was asked and what became of it. */
import type { LogIndex } from "../../../src/raft/types.ts";
import { type Consensus, ConsensusError } from "../../../src/replica/consensus.ts";

interface Told {
  readonly submitted: (command: Uint8Array) => void;
  readonly answered: (command: Uint8Array, answer: unknown) => void;
  readonly refused: (command: Uint8Array, reason: string) => void;
  /** A linearizable read begins; what is returned is told of the index at which it is served. */
  readonly reads: () => (index: LogIndex) => void;
}

export function watchedConsensus(consensus: Consensus, told: Told): Consensus {
  const watch = (command: Uint8Array, answer: Promise<unknown>): Promise<unknown> => {
    told.submitted(command);
    answer.then(
      (said) => told.answered(command, said),
      (error: unknown) => {
        if (error instanceof ConsensusError) told.refused(command, error.reason);
      },
    );
    return answer;
  };
  return {
    id: consensus.id,
    boot: consensus.boot,
    submit: (command, options) => watch(command, consensus.submit(command, options)),
    linearize: (timeoutMs) => {
      const served = told.reads();
      const read = consensus.linearize(timeoutMs);
      read.then(served, () => undefined);
      return read;
    },
    confirmLeadership: (timeoutMs) => consensus.confirmLeadership(timeoutMs),
    call: (method, body, timeoutMs, signal) => consensus.call(method, body, timeoutMs, signal),
    serve: (method, handler) => consensus.serve(method, handler),
    notify: (to, method, body) => consensus.notify(to, method, body),
    onSeal: (hook) =>
      consensus.onSeal((batch, index, add) =>
        hook(batch, index, (command) => watch(command, add(command))),
      ),
    onLeadership: (listener) => consensus.onLeadership(listener),
    logNow: () => consensus.logNow(),
    transfer: (to, timeoutMs) => consensus.transfer(to, timeoutMs),
    status: () => consensus.status(),
    condemned: () => consensus.condemned(),
    removed: () => consensus.removed(),
  };
}
