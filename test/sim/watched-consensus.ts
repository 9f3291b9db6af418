/** A member's consensus, as its queue uses it, that tells what each of its commands was answered. */
import type { Consensus } from "../../src/replica/consensus.ts";

export function watchedConsensus(
  consensus: Consensus,
  answered: (command: Uint8Array, answer: unknown) => void,
): Consensus {
  const watch = (command: Uint8Array, answer: Promise<unknown>): Promise<unknown> => {
    answer.then(
      (said) => answered(command, said),
      () => undefined,
    );
    return answer;
  };
  return {
    id: consensus.id,
    boot: consensus.boot,
    submit: (command, options) => watch(command, consensus.submit(command, options)),
    linearize: (timeoutMs) => consensus.linearize(timeoutMs),
    confirmLeadership: (timeoutMs) => consensus.confirmLeadership(timeoutMs),
    call: (method, body, timeoutMs, signal) => consensus.call(method, body, timeoutMs, signal),
    serve: (method, handler) => consensus.serve(method, handler),
    notify: (to, method, body) => consensus.notify(to, method, body),
    onSeal: (hook) =>
      consensus.onSeal((batch, add) => hook(batch, (command) => watch(command, add(command)))),
    onLeadership: (listener) => consensus.onLeadership(listener),
    logNow: () => consensus.logNow(),
    transfer: (to, timeoutMs) => consensus.transfer(to, timeoutMs),
    status: () => consensus.status(),
    condemned: () => consensus.condemned(),
    removed: () => consensus.removed(),
  };
}
