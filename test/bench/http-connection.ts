/**
 * One keep-alive connection that speaks just enough HTTP/1.1 to be a load generator: a request costs it a few
 * microseconds, where `fetch` costs about forty, and client and members share the cores here. It sends one request at a time.
 */
import type { Socket } from "bun";

export interface HttpAnswer {
  readonly status: number;
  /** Empty unless the body was asked for. */
  readonly body: string;
}

interface Waiting {
  readonly wantsBody: boolean;
  readonly resolve: (answer: HttpAnswer) => void;
  readonly reject: (error: Error) => void;
}

const HEADERS_END = Buffer.from("\r\n\r\n");
const CONTENT_LENGTH = /\r\ncontent-length: *(\d+)/i;

export class HttpConnection {
  readonly #host: string;
  #socket: Socket | null = null;
  #received: Buffer | null = null;
  #waiting: Waiting | null = null;
  /** What the kernel did not take yet. */
  #unsent: Uint8Array | null = null;

  private constructor(readonly url: string) {
    this.#host = new URL(url).host;
  }

  /** @throws when nobody listens at `url`. */
  static async open(url: string): Promise<HttpConnection> {
    const connection = new HttpConnection(url);
    const { hostname, port } = new URL(url);
    const end = (error: Error): void => connection.#end(error);
    connection.#socket = await Bun.connect({
      hostname,
      port: Number(port),
      socket: {
        data: (_, chunk) => connection.#data(chunk),
        drain: () => connection.#flush(),
        close: () => end(new Error("the member closed the connection")),
        error: (_, error) => end(error),
      },
    });
    return connection;
  }

  get isOpen(): boolean {
    return this.#socket !== null;
  }

  get isBusy(): boolean {
    return this.#waiting !== null;
  }

  post(path: string, body: string, { wantsBody = false, headers = "" } = {}): Promise<HttpAnswer> {
    const length = Buffer.byteLength(body);
    return this.#ask(
      `POST ${path} HTTP/1.1\r\nHost: ${this.#host}\r\nContent-Type: application/json\r\n${headers}Content-Length: ${length}\r\n\r\n${body}`,
      wantsBody,
    );
  }

  get(path: string, { wantsBody = false } = {}): Promise<HttpAnswer> {
    return this.#ask(`GET ${path} HTTP/1.1\r\nHost: ${this.#host}\r\n\r\n`, wantsBody);
  }

  close(): void {
    const socket = this.#socket;
    this.#socket = null;
    socket?.terminate();
  }

  #ask(request: string, wantsBody: boolean): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      if (this.#socket === null) {
        reject(new Error("the connection is closed"));
        return;
      }
      if (this.#waiting !== null) throw new Error("one request at a time");
      this.#waiting = { wantsBody, resolve, reject };
      const bytes = Buffer.from(request);
      const sent = this.#socket.write(bytes);
      if (sent < bytes.length) this.#unsent = bytes.subarray(Math.max(0, sent));
    });
  }

  #flush(): void {
    if (this.#unsent === null || this.#socket === null) return;
    const sent = Math.max(0, this.#socket.write(this.#unsent));
    this.#unsent = sent < this.#unsent.length ? this.#unsent.subarray(sent) : null;
  }

  #data(chunk: Buffer): void {
    // The chunk's memory is the socket's again after this turn.
    const bytes = this.#received === null ? chunk : Buffer.concat([this.#received, chunk]);
    const end = bytes.indexOf(HEADERS_END);
    if (end < 0) {
      this.#received = Buffer.from(bytes);
      return;
    }
    const head = bytes.toString("latin1", 0, end);
    const length = Number(CONTENT_LENGTH.exec(head)?.[1] ?? 0);
    const total = end + HEADERS_END.length + length;
    if (bytes.length < total) {
      this.#received = Buffer.from(bytes);
      return;
    }
    this.#received = null;
    const waiting = this.#waiting;
    this.#waiting = null;
    const body =
      waiting?.wantsBody === true ? bytes.toString("utf8", end + HEADERS_END.length, total) : "";
    waiting?.resolve({ status: Number(head.slice(9, 12)), body });
  }

  #end(error: Error): void {
    this.#socket = null;
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.reject(error);
  }
}

/** Connections to one member, each used by one caller. */
export async function openConnections(url: string, count: number): Promise<HttpConnection[]> {
  return Promise.all(Array.from({ length: count }, () => HttpConnection.open(url)));
}
