/**
 * Linearizable reads without log entries: ReadIndex (Raft dissertation, 6.4).
 *
 * A leader notes its commit index, proves with a round of heartbeats begun AFTER that it still leads, and
 * answers. Until it has committed an entry of its own term it does not know the commit index; reads wait.
 */
import { must } from "./invariant.ts";
import type { LogIndex, NodeId } from "./types.ts";

/** `from` null: this member's own. */
export interface ReadRequest {
  readonly id: number;
  readonly from: NodeId | null;
}

/** The leader's side: lives as long as the leadership. */
export class LeaderReads {
  readonly #waitingMax: number;
  /** Came before the first commit of the term. */
  readonly #early: ReadRequest[] = [];
  /** Wait for their round; rounds ascend. */
  readonly #confirming: {
    readonly request: ReadRequest;
    readonly index: LogIndex;
    readonly round: number;
  }[] = [];

  constructor(waitingMax: number) {
    this.#waitingMax = waitingMax;
  }

  get count(): number {
    return this.#early.length + this.#confirming.length;
  }

  get full(): boolean {
    return this.count >= this.#waitingMax;
  }

  holdEarly(request: ReadRequest): void {
    this.#early.push(request);
  }

  takeEarly(): readonly ReadRequest[] {
    return this.#early.splice(0);
  }

  /** `index`: the commit index when the read arrived; `round`: a round begun after that. */
  confirm(request: ReadRequest, index: LogIndex, round: number): void {
    this.#confirming.push({ request, index, round });
  }

  /** Reads whose round, or a later one, a quorum has answered. */
  confirmed(round: number): readonly { readonly request: ReadRequest; readonly index: LogIndex }[] {
    const waiting = this.#confirming.findIndex((read) => read.round > round);
    return this.#confirming.splice(0, waiting < 0 ? this.#confirming.length : waiting);
  }

  /** Leadership is lost: all of them are to be refused. */
  takeAll(): readonly ReadRequest[] {
    return [...this.takeEarly(), ...this.#confirming.splice(0).map(({ request }) => request)];
  }
}

/** The follower's side: ids that were asked of the current leader and are not answered. */
export class ForwardedReads {
  readonly #waitingMax: number;
  readonly #ids = new Set<number>();

  constructor(waitingMax: number) {
    this.#waitingMax = waitingMax;
  }

  /** Answers the id that had to make room, whose answer was lost long ago; or null. */
  add(id: number): number | null {
    this.#ids.add(id);
    if (this.#ids.size <= this.#waitingMax) return null;
    const oldest = must(this.#ids.values().next().value, "there are ids");
    this.#ids.delete(oldest);
    return oldest;
  }

  /** False for an id that is not waited for: a late or repeated answer. */
  answered(id: number): boolean {
    return this.#ids.delete(id);
  }

  takeAll(): readonly number[] {
    const ids = [...this.#ids];
    this.#ids.clear();
    return ids;
  }
}
