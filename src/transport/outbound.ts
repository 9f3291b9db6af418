/**
 * The connection that this member dials to one peer, and sends on: dial, handshake, keepalive, redial.
 *
 * Where several addresses are known of it they are dialled by turns: an attempt that comes to nothing makes way for
 * the next address, one that was open is made again where it was. Who answers must prove to be the peer.
 * It ends in one place (`#end`), with the reason for the driver; what a socket says after that is ignored.
 * Bun's client has no time limits of its own and `close()` may hang for ever on a stopped peer, so every
 * wait here has a timer and every end is a `terminate()`.
 */
import { randomBytes } from "node:crypto";
import type { DisconnectReason, Millis, Refusal, Timer } from "../replica/ports.ts";
import { INDEX_0, type LogIndex, type NodeId } from "../raft/types.ts";
import {
  type ClientSocket,
  closeThenCut,
  codeOf,
  openClientSocket,
  reasonOfError,
  textOf,
  TLS_FAILED,
  UPGRADE_NOT_YET,
  UPGRADE_REFUSED,
} from "./client-socket.ts";
import { CLOSE, reasonOf } from "./close-codes.ts";
import { joinFrames } from "./codec.ts";
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
import { CodecError } from "./shape.ts";

const BACKOFF_MIN_MS = 20;
const BACKOFF_MAX_MS = 2_000;
/** A connection that held this long was a good one: the backoff starts anew. */
const STABLE_MS = 1_000;
const PING_EVERY_MS = 500;
/**
 * Pings in a row without an answer. They are counted, not timed: after a stall of this process the answers
 * are read late, but only one ping was missed.
 */
const PINGS_MISSED_MAX = 6;
/** What may wait in one connection; beyond it frames are dropped, and Raft sends again. */
const MAX_BUFFERED_BYTES = 32 * 1024 * 1024;
/** Frames of a turn share one message up to here: beyond it a copy costs more than a message. */
const GATHERED_BYTES_MAX = 64 * 1024;

/** One dialled socket and how far it has come. */
interface Attempt {
  readonly url: string;
  readonly socket: ClientSocket;
  readonly nonce: string;
  phase: "dialling" | "proven" | "open";
  openedAt: Millis;
  transcript: Transcript | null;
  /** As of which configuration this member said its hello. */
  judged: LogIndex;
  /** The error that came before the close, for its reason. */
  errorCode: string | null;
  errorMessage: string;
  pingsMissed: number;
  /** Bytes handed to the socket so far, and how many of them had left it, and waited, at the last ping. */
  bytesSent: number;
  bytesLeft: number;
  bytesWaited: number;
}

export class Outbound {
  readonly peer: NodeId;
  /** Where it may be; the first one is dialled next. */
  #urls: readonly string[];
  /** Where it was last met. */
  #metAt: string | null = null;
  readonly #endpoint: Endpoint;
  #attempt: Attempt | null = null;
  /** The timer of the attempt: its handshake limit, then its next ping. */
  #timer: Timer | null = null;
  #redial: Timer | null = null;
  #failures = 0;
  /** When a closed connection was last redialled without a pause. */
  #redialledAt = Number.NEGATIVE_INFINITY;
  #stopped = false;
  #roundTripMs: Millis | null = null;
  /** Sent in this turn, for the attempt that is open; leaves with the next flush. */
  #gathered: Uint8Array<ArrayBuffer>[] = [];
  #gatheredBytes = 0;

  /** `urls`: at least one, likeliest first. */
  constructor(peer: NodeId, urls: readonly string[], endpoint: Endpoint) {
    this.peer = peer;
    this.#urls = urls;
    this.#endpoint = endpoint;
  }

  /**
   * From now on it may be at these addresses. A new one is dialled next, and at once if nothing is under way. False:
   * what is open or under way goes to another one, and must be ended.
   */
  mayBeAt(urls: readonly string[]): boolean {
    const attempt = this.#attempt;
    if (urls.length === 0 || (attempt !== null && !urls.includes(attempt.url))) return false;
    const known = this.#urls.filter((url) => urls.includes(url));
    const fresh = urls.filter((url) => !this.#urls.includes(url));
    // Made again where it is open, before it is looked for elsewhere.
    this.#urls = this.isOpen ? [...known, ...fresh] : [...fresh, ...known];
    if (fresh.length > 0) {
      this.#failures = 0;
      this.dial();
    }
    return true;
  }

  get isOpen(): boolean {
    return this.#attempt?.phase === "open";
  }

  get roundTripMs(): Millis | null {
    return this.isOpen ? this.#roundTripMs : null;
  }

  /** The peer shows that it is alive: no reason to wait, at none of its addresses. */
  dialSoon(): void {
    if (this.#urls.length > 1) this.#failures = 0;
    this.dial();
  }

  /** Dials now, unless a connection is up or on its way. */
  dial(): void {
    const [url] = this.#urls;
    if (url === undefined || this.#stopped || this.#attempt !== null) return;
    this.#redial?.cancel();
    this.#redial = null;
    const { clock } = this.#endpoint;
    let socket: ClientSocket;
    try {
      socket = openClientSocket(url, this.#endpoint.tls);
    } catch (error) {
      this.#endpoint.notices.warn(`the address of ${this.peer} cannot be dialled`, {
        url,
        error: String(error),
      });
      this.#turnFrom(url);
      this.#scheduleRedial();
      return;
    }
    socket.binaryType = "arraybuffer";
    const attempt: Attempt = {
      url,
      socket,
      nonce: randomBytes(NONCE_BYTES).toString("hex"),
      phase: "dialling",
      judged: INDEX_0,
      openedAt: 0,
      transcript: null,
      errorCode: null,
      errorMessage: "",
      pingsMissed: 0,
      bytesSent: 0,
      bytesLeft: 0,
      bytesWaited: 0,
    };
    this.#attempt = attempt;
    this.#timer = clock.after(HANDSHAKE_TIMEOUT_MS, () => {
      this.#endpoint.notices.debug(`${this.peer} did not finish the handshake in time`, {
        url,
        phase: attempt.phase,
      });
      this.#end(attempt, "timeout");
    });
    socket.addEventListener("open", () => {
      if (this.#attempt !== attempt) return;
      this.#say(attempt, {
        type: "open",
        speaks: this.#endpoint.protocol,
        from: this.#endpoint.selfId,
        to: this.peer,
        nonce: attempt.nonce,
        secret: this.#endpoint.secret !== null,
      });
    });
    socket.addEventListener("message", (event: MessageEvent<unknown>) =>
      this.#received(attempt, event.data),
    );
    socket.addEventListener("pong", (event: Event) => this.#ponged(attempt, event));
    socket.addEventListener("error", (event: Event) => {
      if (!(event instanceof ErrorEvent)) return;
      attempt.errorCode = codeOf(event.error);
      attempt.errorMessage = event.message;
    });
    socket.addEventListener("close", (event: CloseEvent) => this.#closed(attempt, event.code));
  }

  /** Given to the socket and not sent yet. */
  get bufferedBytes(): number {
    return (this.#attempt?.socket.bufferedAmount ?? 0) + this.#gatheredBytes;
  }

  /** Of the protocol, as agreed on the connection that is open; null without one. */
  get version(): number | null {
    const attempt = this.#attempt;
    return attempt?.phase === "open" ? (attempt.transcript?.version ?? null) : null;
  }

  /** A frame; it leaves at the end of this turn, together with the others of it. False: dropped. */
  send(bytes: Uint8Array<ArrayBuffer>): boolean {
    const attempt = this.#attempt;
    if (attempt === null || attempt.phase !== "open") return false;
    if (attempt.socket.readyState !== WebSocket.OPEN) return false;
    if (this.bufferedBytes + bytes.length > MAX_BUFFERED_BYTES) return false;
    if (this.#gatheredBytes + bytes.length > GATHERED_BYTES_MAX) this.flush();
    if (this.#gathered.length === 0) queueMicrotask(() => this.flush());
    this.#gathered.push(bytes);
    this.#gatheredBytes += bytes.length;
    return true;
  }

  /** What was sent so far leaves now. */
  flush(): void {
    if (this.#gathered.length === 0) return;
    const message = joinFrames(this.#gathered);
    this.#gathered = [];
    this.#gatheredBytes = 0;
    const attempt = this.#attempt;
    if (attempt === null || attempt.socket.readyState !== WebSocket.OPEN) return;
    attempt.socket.send(message);
    attempt.bytesSent += message.length;
  }

  /** Ends for good; the driver hears "ours" if it had heard of the connection. Resolves once it is cut. */
  stop(sentence: string): Promise<void> {
    this.#stopped = true;
    this.#redial?.cancel();
    this.#redial = null;
    const attempt = this.#attempt;
    if (attempt === null) return Promise.resolve();
    const { clock, events } = this.#endpoint;
    this.flush();
    this.#forget();
    if (attempt.phase === "open") clock.soon(() => events.disconnected(this.peer, "ours"));
    return closeThenCut(attempt.socket, CLOSE.drain, sentence, this.#endpoint.clock);
  }

  #received(attempt: Attempt, message: unknown): void {
    if (this.#attempt !== attempt) return;
    if (typeof message !== "string") {
      this.#refuse(
        attempt,
        CLOSE.protocol,
        `${this.peer} sent a frame on a connection it accepted`,
      );
      return;
    }
    try {
      this.#step(attempt, parseHandshake(message));
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      this.#refuse(attempt, CLOSE.protocol, `${this.peer} answered nonsense: ${error.message}`);
    }
  }

  #step(attempt: Attempt, message: HandshakeMessage): void {
    switch (message.type) {
      case "challenge":
        this.#challenged(attempt, message);
        return;
      case "welcome":
        this.#welcomed(attempt, message);
        return;
      case "reject":
        this.#rejected(attempt, message);
        return;
      case "open":
      case "proof":
        throw new CodecError("a message of the dialler");
    }
  }

  #rejected({ url, phase, judged }: Attempt, { sentence, code }: Refusal): void {
    const { notices, events } = this.#endpoint;
    const fields = { peer: this.peer, url };
    if (code === "joining") notices.debug(`not yet at ${this.peer}: ${sentence}`, fields);
    else notices.warn(`refused by ${this.peer}: ${sentence}`, fields);
    const what = phase === "proven" ? "hello" : "connection";
    events.refused(this.peer, { sentence, code }, { what, configIndex: judged });
  }

  #challenged(attempt: Attempt, challenge: Extract<HandshakeMessage, { type: "challenge" }>): void {
    if (attempt.phase !== "dialling") throw new CodecError("a second challenge");
    const { selfId, secret } = this.#endpoint;
    if (challenge.from !== this.peer) {
      const sentence = `${attempt.url} was dialled for ${this.peer} and belongs to ${challenge.from}: correct --peers`;
      this.#refuse(attempt, CLOSE.rejected, sentence);
      return;
    }
    const { oldest, newest } = this.#endpoint.protocol;
    if (challenge.version < oldest || challenge.version > newest)
      throw new CodecError(`version ${challenge.version} was not offered`);
    const mismatch = secretMismatch(selfId, secret !== null, this.peer, challenge.secret);
    if (mismatch !== null) {
      this.#refuse(attempt, CLOSE.secret, mismatch);
      return;
    }
    const hello = this.#endpoint.self();
    attempt.phase = "proven";
    attempt.judged = hello.configIndex ?? INDEX_0;
    attempt.transcript = {
      version: challenge.version,
      dialler: selfId,
      accepter: this.peer,
      diallerNonce: attempt.nonce,
      accepterNonce: challenge.nonce,
      diallerHello: JSON.stringify(hello),
      accepterHello: "",
    };
    this.#say(attempt, {
      type: "proof",
      hello: attempt.transcript.diallerHello,
      proof: prove(secret, "dialler", attempt.transcript, hello.clusterId),
    });
  }

  #welcomed(attempt: Attempt, welcome: Extract<HandshakeMessage, { type: "welcome" }>): void {
    if (attempt.phase !== "proven" || attempt.transcript === null) {
      throw new CodecError("a welcome out of turn");
    }
    const { selfId, secret, clock, events } = this.#endpoint;
    const transcript = { ...attempt.transcript, accepterHello: welcome.hello };
    const hello = parseHello(welcome.hello);
    if (!proves(welcome.proof, prove(secret, "accepter", transcript, hello.clusterId))) {
      this.#refuse(attempt, CLOSE.secret, wrongSecret(this.peer, selfId));
      return;
    }
    if (hello.id !== this.peer) throw new CodecError("the hello of another member");
    const refusal = events.admit(hello);
    if (refusal !== null) {
      this.#refuse(attempt, CLOSE.rejected, refusal.sentence, refusal.code);
      return;
    }
    attempt.phase = "open";
    attempt.openedAt = clock.monotonic();
    this.#metAt = attempt.url;
    this.#urls = [attempt.url, ...this.#urls.filter((url) => url !== attempt.url)];
    this.#roundTripMs = null;
    this.#timer?.cancel();
    this.#ping(attempt);
    events.connected(this.peer, hello);
  }

  #ping(attempt: Attempt): void {
    const { clock, notices } = this.#endpoint;
    this.#creditProgress(attempt);
    if (attempt.pingsMissed >= PINGS_MISSED_MAX) {
      notices.warn(`${this.peer} no longer answers pings`, { peer: this.peer, url: attempt.url });
      this.#end(attempt, "timeout");
      return;
    }
    attempt.pingsMissed += 1;
    // The answer brings the time of its own ping back, however many were sent after it.
    attempt.socket.ping(String(clock.monotonic()));
    this.#timer = clock.after(PING_EVERY_MS, () => this.#ping(attempt));
  }

  /**
   * On a slow link pings queue behind megabytes. While bytes wait AND some have left since the last ping,
   * the peer takes them: it lives. Bytes that leave without any waiting prove nothing, the kernel has room.
   */
  #creditProgress(attempt: Attempt): void {
    const waiting = attempt.socket.bufferedAmount;
    const left = attempt.bytesSent - waiting;
    if (attempt.bytesWaited > 0 && waiting > 0 && left > attempt.bytesLeft) attempt.pingsMissed = 0;
    attempt.bytesWaited = waiting;
    attempt.bytesLeft = left;
  }

  #ponged(attempt: Attempt, event: Event): void {
    if (this.#attempt !== attempt) return;
    attempt.pingsMissed = 0;
    if (!(event instanceof MessageEvent)) return;
    const roundTripMs = this.#endpoint.clock.monotonic() - Number(textOf(event.data));
    if (roundTripMs >= 0 && Number.isFinite(roundTripMs)) this.#roundTripMs = roundTripMs;
  }

  #closed(attempt: Attempt, code: number): void {
    if (this.#attempt !== attempt) return;
    if (attempt.phase !== "dialling") {
      this.#end(attempt, reasonOf(code));
      return;
    }
    if (attempt.errorMessage.includes(UPGRADE_REFUSED)) {
      const fields = { url: attempt.url, error: attempt.errorMessage };
      const { notices } = this.#endpoint;
      // Of members that are started together, most meet others that are not open yet.
      if (attempt.errorMessage.includes(UPGRADE_NOT_YET))
        notices.debug(`${this.peer} takes no connections of members yet`, fields);
      else notices.warn(`${this.peer} does not take connections of members`, fields);
      this.#end(attempt, "rejected");
      return;
    }
    if (attempt.errorMessage.includes(TLS_FAILED)) {
      this.#endpoint.notices.warn(`${this.peer} does not show a certificate that is trusted here`, {
        url: attempt.url,
        error: attempt.errorMessage,
      });
    }
    if (attempt.errorCode === null) {
      this.#end(attempt, reasonOf(code));
      return;
    }
    const reason = reasonOfError(attempt.errorCode);
    // Where it never was, that nobody listens says nothing about its process.
    const elsewhere = this.#urls.length > 1 && attempt.url !== this.#metAt;
    this.#end(attempt, reason === "refused" && elsewhere ? "timeout" : reason);
  }

  /** This side does not want the connection: says why to the other, logs it, and is done. */
  #refuse(
    attempt: Attempt,
    closeCode: number,
    sentence: string,
    code: Refusal["code"] = "refused",
  ): void {
    if (this.#attempt !== attempt) return;
    const { notices, events, clock } = this.#endpoint;
    const fields = { peer: this.peer, url: attempt.url };
    if (code === "joining") notices.debug(`not yet: ${sentence}`, fields);
    else notices.warn(`refused ${this.peer}: ${sentence}`, fields);
    this.#say(attempt, { type: "reject", sentence, code });
    void closeThenCut(attempt.socket, closeCode, sentence, clock);
    events.refused(this.peer, { sentence, code }, { what: "peer" });
    this.#end(attempt, reasonOf(closeCode), "closing");
  }

  #end(attempt: Attempt, reason: DisconnectReason, socketState: "cut" | "closing" = "cut"): void {
    if (this.#attempt !== attempt) return;
    const { clock, events } = this.#endpoint;
    this.#forget();
    if (socketState === "cut") attempt.socket.terminate();
    const wasOpen = attempt.phase === "open";
    if (!wasOpen) this.#turnFrom(attempt.url);
    const now = clock.monotonic();
    if (wasOpen && now - attempt.openedAt >= STABLE_MS) this.#failures = 0;
    if (wasOpen && reason === "closed-by-peer" && now - this.#redialledAt >= STABLE_MS) {
      // At once, but not inside the close: tells a dead process (refused) from a cut connection. Not again
      // soon, or a peer that accepts and closes would be dialled without a pause.
      this.#redialledAt = now;
      this.#redial = clock.after(0, () => this.dial());
    } else {
      this.#scheduleRedial();
    }
    events.disconnected(this.peer, reason);
  }

  #forget(): void {
    this.#attempt = null;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#timer?.cancel();
    this.#timer = null;
    this.#roundTripMs = null;
  }

  /** It was not there: the next address's turn. */
  #turnFrom(url: string): void {
    if (this.#urls[0] === url) this.#urls = [...this.#urls.slice(1), url];
  }

  #scheduleRedial(): void {
    if (this.#stopped) return;
    const { clock, random } = this.#endpoint;
    // Grows with the rounds: with more addresses none is dialled later.
    const rounds = Math.floor(this.#failures / Math.max(1, this.#urls.length));
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(rounds, 16));
    this.#failures += 1;
    // Half fixed, half random: members that lost each other do not redial in step.
    const delay = ceiling / 2 + (random.float() * ceiling) / 2;
    this.#redial = clock.after(delay, () => this.dial());
  }

  #say(attempt: Attempt, message: HandshakeMessage): void {
    if (attempt.socket.readyState !== WebSocket.OPEN) return;
    attempt.socket.send(JSON.stringify(message));
  }
}
