/**
 * Server-sent events as text (WHATWG HTML, section 9.2), and one client's stream with its limits.
 */

/** An unnamed message. Every line of `data` gets a field of its own, whatever breaks the lines. */
export function encodeMessage(data: string): string {
  return `${data
    .split(/\r\n|\r|\n/)
    .map((line) => `data: ${line}`)
    .join("\n")}\n\n`;
}

/** A comment: keeps proxies and idle time-outs from cutting a stream that has nothing to say. */
export const HEARTBEAT = ": still here\n\n";

/** Bytes that may wait for one client: a few full pages. */
export const STREAM_BUFFER_BYTES = 512 * 1024;

const encoder = new TextEncoder();

export type SendResult = "sent" | "behind" | "closed";

/** The sending half of one client's stream. */
export class EventStream {
  readonly body: ReadableStream<Uint8Array>;
  readonly #onClose: () => void;
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null;

  /** `onClose` runs once, when the client has gone or `close` was called. */
  constructor(onClose: () => void) {
    let closed = false;
    this.#onClose = () => {
      if (closed) return;
      closed = true;
      this.#controller = null;
      onClose();
    };
    this.body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        cancel: () => this.#onClose(),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: STREAM_BUFFER_BYTES }),
    );
  }

  /** `behind`: the client still has too much to read, and this was dropped. */
  send(text: string): SendResult {
    const controller = this.#controller;
    if (controller === null) return "closed";
    if ((controller.desiredSize ?? 0) <= 0) return "behind";
    controller.enqueue(encoder.encode(text));
    return "sent";
  }

  close(): void {
    const controller = this.#controller;
    if (controller === null) return;
    this.#onClose();
    controller.close();
  }
}
