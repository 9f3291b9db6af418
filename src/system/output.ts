/**
 * Where the log's lines go: standard output from the listening line on, standard error before it and when
 * standard output cannot take them. A reader that left or does not read never stops or kills the process:
 * `flotilla | head -1`, a log collector that died, a full disk behind a redirection.
 */

/** What is used of `process.stdout` and `process.stderr`. */
export interface LineStream {
  /** `done` is called when the text has left this process, or cannot: then with the error. */
  write(text: string, done: (error?: Error | null) => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
}

/** What may wait for a slow reader, per stream: some seconds of a busy log. Later lines are left out. */
const MAX_WAITING_CHARACTERS = 1024 * 1024;

export class Output {
  readonly #out: Sink;
  readonly #err: Sink;
  #opened = false;

  constructor(
    out: LineStream = process.stdout,
    err: LineStream = process.stderr,
    maxWaiting = MAX_WAITING_CHARACTERS,
  ) {
    this.#out = new Sink(out, maxWaiting);
    this.#err = new Sink(err, maxWaiting);
  }

  /** The first line of standard output, with its line feed; from now on `write` goes there. */
  open(first: string): void {
    this.#opened = true;
    this.write(first);
  }

  /** One line or more, with their line feeds. Never throws. */
  write(text: string): void {
    if (!this.#opened) {
      this.#err.write(text, () => undefined);
      return;
    }
    this.#out.write(text, () => this.#err.write(text, () => undefined));
  }

  /** For the last sentence of a process: standard error, whatever was opened. */
  writeError(text: string): void {
    this.#err.write(text, () => this.#out.write(text, () => undefined));
  }
}

class Sink {
  readonly #stream: LineStream;
  readonly #maxWaiting: number;
  #waiting = 0;
  #leftOut = 0;
  #gone = false;

  constructor(stream: LineStream, maxWaiting: number) {
    this.#stream = stream;
    this.#maxWaiting = maxWaiting;
    // Each write hears of its error by itself; an event without a listener would end the process.
    stream.on("error", () => undefined);
  }

  /** `failed` is called, later, if the text could not be written. */
  write(text: string, failed: () => void): void {
    if (this.#gone) {
      failed();
      return;
    }
    if (this.#waiting + text.length > this.#maxWaiting) {
      this.#leftOut += 1;
      return;
    }
    if (this.#leftOut > 0) {
      const notice = `(${this.#leftOut} lines were left out here: their reader was too slow)\n`;
      this.#leftOut = 0;
      this.#hand(notice, () => undefined);
    }
    this.#hand(text, failed);
  }

  #hand(text: string, failed: () => void): void {
    this.#waiting += text.length;
    try {
      this.#stream.write(text, (error) => {
        this.#waiting -= text.length;
        if (error === undefined || error === null) return;
        if (endsTheStream(error)) this.#gone = true;
        failed();
      });
    } catch {
      this.#waiting -= text.length;
      failed();
    }
  }
}

/** Nobody will ever read again; anything else, such as a full disk, may pass. */
function endsTheStream(error: Error): boolean {
  return "code" in error && (error.code === "EPIPE" || error.code === "EBADF");
}
