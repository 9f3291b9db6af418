/**
 * This member's own commands that have no answer yet (rule T2). Each has a sequence number; together with
 * the member's id and boot it names the command for ever, so it may be sent to one leader after another
 * and still happens once. An answer is learnt by applying the entry that holds the command.
 */
import type { NodeId, Term } from "../raft/types.ts";
import { ConsensusError } from "./consensus.ts";
import type { Millis } from "./ports.ts";

/**
 * Unanswered commands a member may have; the machine keeps their answers, so this bounds its window too. More than a second of what three
 * members take on two cores: in a crowd of clients a round of theirs lasts a third of one, and a quarter of this kept 54 to 75 % of their rate.
 */
const PENDING_MAX = 16_384;
/** Above it, for what the leader adds to its own entries: a burst of submits must not keep claims out. */
const ADDED_MAX = 1_024;
/** Of the unanswered commands together. */
const PENDING_BYTES_MAX = 64 * 1024 * 1024;

export interface PendingCommand {
  readonly seq: number;
  readonly bytes: Uint8Array;
  readonly hint: unknown;
  readonly weight: number;
  readonly awaitedElsewhere: boolean;
  /** The only term in which this member may log it, itself; null: any leader may, at any time. */
  readonly onlyIn: Term | null;
  readonly deadline: Millis;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: ConsensusError) => void;
  /** To whom it was handed last, null when it waits for a leader; and when. */
  sentTo: NodeId | null;
  sentAt: Millis;
  /** Leaders that may have put it into their log: above zero, a missing answer means an unknown outcome. */
  exposures: number;
}

export class PendingCommands {
  /** Ascending by sequence, as inserted: the first key is the lowest unanswered one. */
  readonly #bySeq = new Map<number, PendingCommand>();
  #next = 1;
  #bytes = 0;

  get size(): number {
    return this.#bySeq.size;
  }

  /** Every answer below this sequence has been received or given up. */
  ackedBelow(): number {
    for (const seq of this.#bySeq.keys()) return seq;
    return this.#next;
  }

  /** `added`: by the leader to an entry of its own. @throws ConsensusError overloaded */
  add(
    bytes: Uint8Array,
    hint: unknown,
    weight: number,
    deadline: Millis,
    {
      added = false,
      awaitedElsewhere = false,
      onlyIn = null,
    }: {
      readonly added?: boolean;
      readonly awaitedElsewhere?: boolean;
      readonly onlyIn?: Term | null;
    } = {},
  ): { command: PendingCommand; answer: Promise<unknown> } {
    const most = added ? PENDING_MAX + ADDED_MAX : PENDING_MAX;
    if (this.#bySeq.size >= most || this.#bytes + bytes.length > PENDING_BYTES_MAX) {
      throw new ConsensusError(
        "overloaded",
        `${this.#bySeq.size} commands of this member wait for an answer already`,
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const command: PendingCommand = {
      seq: this.#next++,
      bytes,
      hint,
      weight,
      awaitedElsewhere,
      onlyIn,
      deadline,
      resolve,
      reject,
      sentTo: null,
      sentAt: 0,
      exposures: 0,
    };
    this.#bySeq.set(command.seq, command);
    this.#bytes += bytes.length;
    return { command, answer: promise };
  }

  get(seq: number): PendingCommand | undefined {
    return this.#bySeq.get(seq);
  }

  values(): IterableIterator<PendingCommand> {
    return this.#bySeq.values();
  }

  answered(seq: number, answer: unknown): void {
    const command = this.#take(seq);
    command?.resolve(answer);
  }

  /** Gives a command up; if a leader may have logged it, its outcome is unknown, whatever the reason. */
  fail(command: PendingCommand, error: ConsensusError): void {
    if (this.#take(command.seq) === undefined) return;
    command.reject(
      command.exposures > 0
        ? new ConsensusError(
            "outcome-unknown",
            `${error.message}; the command was sent and may still happen`,
          )
        : error,
    );
  }

  #take(seq: number): PendingCommand | undefined {
    const command = this.#bySeq.get(seq);
    if (command === undefined) return undefined;
    this.#bySeq.delete(seq);
    this.#bytes -= command.bytes.length;
    return command;
  }
}
