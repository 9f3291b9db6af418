/** Gathers what the core wants done between two calls of `takeEffects`. */
import { must } from "./invariant.ts";
import {
  type Effects,
  type FetchRequest,
  type LogIndex,
  type Message,
  type NodeId,
  type ReadState,
  type Term,
} from "./types.ts";

type WithoutAddress<M> = M extends Message ? Omit<M, "from" | "to" | "term"> : never;

/** A message without from, to and term. */
export type MessageBody = WithoutAddress<Message>;

/** The part of the effects that is gathered along the way; the rest is read off the state. */
export type Gathered = Pick<
  Effects,
  "messages" | "afterPersist" | "reads" | "fetches" | "snapshots" | "install"
>;

export class Outbox {
  readonly #self: NodeId;
  #messages: Message[] = [];
  #afterPersist: Message[] = [];
  #reads: ReadState[] = [];
  #fetches: FetchRequest[] = [];
  readonly #snapshots = new Set<NodeId>();
  #install: Effects["install"] = null;

  constructor(self: NodeId) {
    this.#self = self;
  }

  send(to: NodeId, term: Term, body: MessageBody): void {
    this.#messages.push({ from: this.#self, to, term, ...body });
  }

  /** For promises about this member's disk: leaves when all that is pending now is durable. */
  sendAfterPersist(to: NodeId, term: Term, body: MessageBody): void {
    this.#afterPersist.push({ from: this.#self, to, term, ...body });
  }

  /** Entries from `from` on were replaced before they were written: nothing may vouch for them. */
  truncated(from: LogIndex): void {
    this.#afterPersist = this.#afterPersist.filter(
      (message) =>
        message.type !== "append-reply" ||
        must(message.match, "a refusal waits for no disk") < from,
    );
  }

  read(state: ReadState): void {
    this.#reads.push(state);
  }

  fetch(request: FetchRequest): void {
    this.#fetches.push(request);
  }

  snapshot(peer: NodeId): void {
    this.#snapshots.add(peer);
  }

  install(offer: NonNullable<Effects["install"]>): void {
    this.#install = offer;
  }

  /** Looked at several times a commit: it makes nothing. */
  get isEmpty(): boolean {
    return (
      this.#snapshots.size === 0 &&
      this.#messages.length === 0 &&
      this.#afterPersist.length === 0 &&
      this.#reads.length === 0 &&
      this.#fetches.length === 0 &&
      this.#install === null
    );
  }

  /** Null when there is nothing. */
  take(): Gathered | null {
    if (this.isEmpty) return null;
    const gathered: Gathered = {
      messages: this.#messages,
      afterPersist: this.#afterPersist,
      reads: this.#reads,
      fetches: this.#fetches,
      snapshots: [...this.#snapshots],
      install: this.#install,
    };
    this.#messages = [];
    this.#afterPersist = [];
    this.#reads = [];
    this.#fetches = [];
    this.#snapshots.clear();
    this.#install = null;
    return gathered;
  }
}
