/**
 * One connection that another member dialled to this one: the accepting half of the handshake, then frames.
 */
import { randomBytes } from "node:crypto";
import type { ServerWebSocket } from "bun";
import type { PeerHello, Refusal, Timer } from "../replica/ports.ts";
import { CLOSE } from "./close-codes.ts";
import { decodeFrame, splitFrames } from "./codec.ts";
import { type Endpoint, HANDSHAKE_TIMEOUT_MS } from "./endpoint.ts";
import {
  type HandshakeMessage,
  NONCE_BYTES,
  parseHandshake,
  parseHello,
  prove,
  proves,
  secretMismatch,
  type Transcript,
  wrongSecret,
} from "./handshake.ts";
import { agreedVersion, protocolRefusal } from "./protocol-version.ts";
import { CodecError } from "./shape.ts";

/** What a session needs of the set of all sessions. */
export interface Sessions {
  /** The session proved who it is. False: a connection of a newer process of that member is up. */
  admitted(session: Inbound, hello: PeerHello): boolean;
  closed(session: Inbound): void;
}

const REFUSED = { code: "refused" } as const;

type Phase =
  | { readonly at: "open" }
  | { readonly at: "proof"; readonly transcript: Transcript }
  | { readonly at: "frames"; readonly hello: PeerHello; readonly version: number }
  | { readonly at: "closed" };

export class Inbound {
  readonly #endpoint: Endpoint;
  readonly #sessions: Sessions;
  #phase: Phase = { at: "open" };
  #socket: ServerWebSocket<Inbound> | null = null;
  #timer: Timer | null = null;

  constructor(endpoint: Endpoint, sessions: Sessions) {
    this.#endpoint = endpoint;
    this.#sessions = sessions;
    // Counts from the upgrade on: a session whose socket never opens is given up as well.
    this.#timer = endpoint.clock.after(HANDSHAKE_TIMEOUT_MS, () =>
      this.close(CLOSE.timeout, "the handshake took too long"),
    );
  }

  /** The other member's hello once it is proved and admitted. */
  get hello(): PeerHello | null {
    return this.#phase.at === "frames" ? this.#phase.hello : null;
  }

  opened(socket: ServerWebSocket<Inbound>): void {
    this.#socket = socket;
    if (this.#phase.at === "closed") socket.terminate();
  }

  received(message: string | Uint8Array): void {
    try {
      if (typeof message === "string") this.#step(parseHandshake(message));
      else this.#frame(message);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#refuse(CLOSE.protocol, `${this.#name()} sent nonsense: ${error.message}`);
    }
  }

  /** The socket is gone. */
  ended(): void {
    this.#phase = { at: "closed" };
    this.#timer?.cancel();
    this.#timer = null;
    this.#socket = null;
    this.#sessions.closed(this);
  }

  /** From now on nothing that still arrives counts. */
  close(code: number, sentence: string): void {
    const socket = this.#socket;
    this.#phase = { at: "closed" };
    this.#timer?.cancel();
    this.#timer = null;
    if (socket === null) this.#sessions.closed(this);
    else socket.close(code, sentence.replace(/[^\x20-\x7e]/g, "?"));
  }

  terminate(): void {
    this.#socket?.terminate();
  }

  #frame(bytes: Uint8Array): void {
    const phase = this.#phase;
    if (phase.at === "closed") return;
    if (phase.at !== "frames") throw new CodecError("a frame before the end of the handshake");
    const { version, hello } = phase;
    for (const each of splitFrames(bytes)) {
      if (this.#phase !== phase) return;
      this.#endpoint.events.frame(hello.id, decodeFrame(each, version), hello.incarnation);
    }
  }

  #step(message: HandshakeMessage): void {
    if (this.#phase.at === "closed") return;
    switch (message.type) {
      case "open":
        this.#open(message);
        return;
      case "proof":
        this.#proof(message);
        return;
      case "reject":
        this.#endpoint.notices.warn(`refused by ${this.#name()}: ${message.sentence}`, {});
        this.close(CLOSE.rejected, "refused by the dialler");
        return;
      case "challenge":
      case "welcome":
        throw new CodecError("a message of the accepter");
    }
  }

  #open(open: Extract<HandshakeMessage, { type: "open" }>): void {
    if (this.#phase.at !== "open") throw new CodecError("a second opening");
    const { selfId, secret, protocol } = this.#endpoint;
    const version = agreedVersion(protocol, open.speaks);
    if (version === null) {
      this.#refuse(CLOSE.rejected, protocolRefusal(selfId, protocol, open.from, open.speaks));
      return;
    }
    if (open.from === selfId) {
      this.#refuse(CLOSE.rejected, `${selfId} is this member's own id: every member needs its own`);
      return;
    }
    if (open.to !== selfId) {
      this.#refuse(
        CLOSE.rejected,
        `${open.from} dialled ${open.to} at the address of ${selfId}: correct its --peers`,
      );
      return;
    }
    const mismatch = secretMismatch(selfId, secret !== null, open.from, open.secret);
    if (mismatch !== null) {
      this.#refuse(CLOSE.secret, mismatch);
      return;
    }
    const nonce = randomBytes(NONCE_BYTES).toString("hex");
    this.#phase = {
      at: "proof",
      transcript: {
        version,
        dialler: open.from,
        accepter: selfId,
        diallerNonce: open.nonce,
        accepterNonce: nonce,
        diallerHello: "",
        accepterHello: "",
      },
    };
    this.#say({ type: "challenge", version, from: selfId, nonce, secret: secret !== null });
  }

  #proof(message: Extract<HandshakeMessage, { type: "proof" }>): void {
    if (this.#phase.at !== "proof") throw new CodecError("a proof out of turn");
    const { selfId, secret, events } = this.#endpoint;
    const hello = parseHello(message.hello);
    const theirs: Transcript = { ...this.#phase.transcript, diallerHello: message.hello };
    if (!proves(message.proof, prove(secret, "dialler", theirs, hello.clusterId))) {
      this.#refuse(CLOSE.secret, wrongSecret(theirs.dialler, selfId));
      return;
    }
    if (hello.id !== theirs.dialler) throw new CodecError("the hello of another member");
    const refusal = events.admit(hello);
    if (refusal !== null) {
      this.#refuse(CLOSE.rejected, refusal.sentence, refusal);
      return;
    }
    const own = this.#endpoint.self();
    const ours: Transcript = { ...theirs, accepterHello: JSON.stringify(own) };
    this.#timer?.cancel();
    this.#timer = null;
    this.#phase = { at: "frames", hello, version: theirs.version };
    if (!this.#sessions.admitted(this, hello)) {
      this.close(CLOSE.duplicate, `a newer process of ${hello.id} is connected`);
      return;
    }
    this.#say({
      type: "welcome",
      hello: ours.accepterHello,
      proof: prove(secret, "accepter", ours, own.clusterId),
    });
  }

  /** It was let in before, and is no member any more. */
  dismiss(refusal: Refusal): void {
    if (this.#phase.at !== "closed") this.#refuse(CLOSE.rejected, refusal.sentence, refusal);
  }

  #refuse(closeCode: number, sentence: string, { code }: Pick<Refusal, "code"> = REFUSED): void {
    const fields = { peer: this.#name() };
    // Being added takes a moment, and is no fault of anybody's.
    if (code === "joining") this.#endpoint.notices.debug(`not yet: ${sentence}`, fields);
    else this.#endpoint.notices.warn(`refused a peer: ${sentence}`, fields);
    this.#say({ type: "reject", sentence, code });
    this.close(closeCode, sentence);
  }

  #say(message: HandshakeMessage): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #name(): string {
    switch (this.#phase.at) {
      case "frames":
        return this.#phase.hello.id;
      case "proof":
        return this.#phase.transcript.dialler;
      case "open":
      case "closed":
        return "a stranger";
    }
  }
}
