/**
 * Questions between members outside the log: heartbeats of leases, claims that wait, views of the cluster.
 * Answered by whoever is asked; the driver sends a question on to the new leader after an election, so
 * handlers must bear being asked twice.
 */
import type { NodeId } from "../raft/types.ts";
import { CallError, ConsensusError } from "./consensus.ts";
import type { Millis, PeerFrame } from "./ports.ts";

/** Questions of this member without an answer. */
const CALLS_MAX = 20_000;

export type Handler = (body: unknown, from: NodeId) => Promise<unknown>;

interface OpenCall {
  readonly id: number;
  readonly method: string;
  readonly body: unknown;
  readonly deadline: Millis;
  readonly resolve: (body: unknown) => void;
  readonly reject: (error: Error) => void;
  sentTo: NodeId | null;
}

export class Calls {
  readonly #self: NodeId;
  readonly #send: (to: NodeId, frame: PeerFrame) => boolean;
  readonly #handlers = new Map<string, Handler>();
  readonly #open = new Map<number, OpenCall>();
  #nextId: number;

  /** `first`: the number of the first question, greater than 0, which is that of what wants no answer. */
  constructor(self: NodeId, first: number, send: (to: NodeId, frame: PeerFrame) => boolean) {
    this.#self = self;
    this.#nextId = first;
    this.#send = send;
  }

  serve(method: string, handler: Handler): void {
    this.#handlers.set(method, handler);
  }

  /** Asks `leader`, or waits for one when it is null. @throws ConsensusError overloaded */
  ask(
    method: string,
    body: unknown,
    deadline: Millis,
    leader: NodeId | null,
    signal?: AbortSignal,
  ): Promise<unknown> {
    if (this.#open.size >= CALLS_MAX) {
      return Promise.reject(
        new ConsensusError("overloaded", `${this.#open.size} calls wait for an answer already`),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const call: OpenCall = {
      id: this.#nextId++,
      method,
      body,
      deadline,
      resolve,
      reject,
      sentTo: null,
    };
    this.#open.set(call.id, call);
    if (signal !== undefined) {
      const abort = (): void =>
        this.#fail(call, new ConsensusError("timeout", `${method} was given up by the caller`));
      if (signal.aborted) abort();
      else {
        signal.addEventListener("abort", abort, { once: true });
        const done = (): void => signal.removeEventListener("abort", abort);
        promise.then(done, done);
      }
    }
    if (leader !== null && this.#open.has(call.id)) this.#dispatch(call, leader);
    return promise;
  }

  notify(to: NodeId, method: string, body: unknown): void {
    if (to === this.#self) void this.#handle(method, body, to).catch(() => undefined);
    else this.#send(to, { kind: "call", id: 0, method, body });
  }

  /** There is a (new) leader, or the connection to it is back: what it was not asked yet, it is asked now. */
  redirect(leader: NodeId): void {
    for (const call of this.#open.values())
      if (call.sentTo !== leader) this.#dispatch(call, leader);
  }

  /** A connection broke: what was asked over it is asked again. */
  disconnected(peer: NodeId): void {
    for (const call of this.#open.values()) if (call.sentTo === peer) call.sentTo = null;
  }

  sweep(now: Millis, leader: NodeId | null): void {
    for (const call of this.#open.values()) {
      if (call.deadline <= now) {
        this.#fail(
          call,
          call.sentTo === null
            ? new ConsensusError("no-leader", "no leader was found within the time limit")
            : new ConsensusError("timeout", `${call.method}: no answer within the time limit`),
        );
      } else if (call.sentTo === null && leader !== null) {
        this.#dispatch(call, leader);
      }
    }
  }

  failAll(error: () => ConsensusError): void {
    for (const call of this.#open.values()) this.#fail(call, error());
  }

  /** A call, reply or error frame arrived. */
  frame(from: NodeId, frame: Extract<PeerFrame, { kind: "call" | "reply" | "error" }>): void {
    switch (frame.kind) {
      case "call":
        this.#handle(frame.method, frame.body, from).then(
          (body) =>
            frame.id !== 0 && this.#send(from, { kind: "reply", id: frame.id, body: body ?? null }),
          (error: unknown) => {
            if (frame.id === 0) return;
            const { code, detail } = describe(error);
            this.#send(from, { kind: "error", id: frame.id, code, detail });
          },
        );
        return;
      case "reply":
        this.#settle(frame.id, from, (call) => call.resolve(frame.body));
        return;
      case "error":
        this.#refused(frame.id, from, frame.code, frame.detail);
        return;
    }
  }

  #dispatch(call: OpenCall, leader: NodeId): void {
    if (leader === this.#self) {
      call.sentTo = leader;
      this.#handle(call.method, call.body, leader).then(
        (body) => this.#settle(call.id, leader, () => call.resolve(body)),
        (error: unknown) => {
          const { code, detail } = describe(error);
          this.#refused(call.id, leader, code, detail);
        },
      );
      return;
    }
    const frame: PeerFrame = { kind: "call", id: call.id, method: call.method, body: call.body };
    if (this.#send(leader, frame)) call.sentTo = leader;
  }

  /** `not-leader` is not the caller's business: the question waits for the next leader. */
  #refused(id: number, from: NodeId, code: string, detail: string): void {
    const call = this.#open.get(id);
    if (call === undefined || call.sentTo !== from) return;
    if (code === "not-leader") {
      call.sentTo = null;
      return;
    }
    this.#fail(
      call,
      code === "internal" ? new ConsensusError("timeout", detail) : new CallError(code, detail),
    );
  }

  #settle(id: number, from: NodeId, settle: (call: OpenCall) => void): void {
    const call = this.#open.get(id);
    if (call === undefined || call.sentTo !== from) return;
    this.#open.delete(id);
    settle(call);
  }

  #fail(call: OpenCall, error: Error): void {
    if (this.#open.delete(call.id)) call.reject(error);
  }

  async #handle(method: string, body: unknown, from: NodeId): Promise<unknown> {
    const handler = this.#handlers.get(method);
    if (handler === undefined)
      throw new CallError("unknown-method", `this member does not answer ${method}`);
    return handler(body, from);
  }
}

function describe(error: unknown): { code: string; detail: string } {
  if (error instanceof CallError) return { code: error.reason, detail: error.message };
  if (error instanceof ConsensusError) {
    return {
      code: error.reason === "not-leader" ? "not-leader" : "internal",
      detail: error.message,
    };
  }
  return { code: "internal", detail: error instanceof Error ? error.message : String(error) };
}
