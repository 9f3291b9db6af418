/**
 * Whether this member has once been where the cluster was when it found it: what `/health/ready` waits for, so that
 * nobody restarts the next member while this one holds nothing yet. Once there, it stays there: being some entries
 * behind under load is what followers are. Only another state, of some earlier index, begins anew.
 */
import type { LogIndex } from "../raft/types.ts";

const MIB = 1024 ** 2;

export class CatchingUp {
  /** What was committed when a leader's word of it came first; null: none came yet. */
  #goal: LogIndex | null = null;
  #isDone = false;

  /** An active leader's word of what is committed. */
  heard(commit: LogIndex): void {
    this.#goal ??= commit;
  }

  /** Another state has taken this member's place: how far the cluster is by now is asked anew. */
  replaced(): void {
    this.#goal = null;
    this.#isDone = false;
  }

  /** A sentence until it is done; `receiving`: of a snapshot that comes in. */
  why(
    applied: LogIndex,
    receiving: { readonly bytes: number; readonly of: number } | null,
  ): string | null {
    if (receiving !== null)
      return `this member takes a snapshot of the state, ${Math.floor(receiving.bytes / MIB)} of ${Math.ceil(receiving.of / MIB)} MiB so far`;
    if (this.#isDone) return null;
    if (this.#goal === null) return "this member has not heard yet how far the cluster is";
    if (applied >= this.#goal) {
      this.#isDone = true;
      return null;
    }
    return `this member catches up: its state is as of log index ${applied}, and ${this.#goal} was committed when it found the leader`;
  }
}
