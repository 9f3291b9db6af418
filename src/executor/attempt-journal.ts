/**
 * Gathers one attempt's progress and log lines inside its Worker, so that a handler that logs in a tight
 * loop costs one message a second and at most LIMITS.attemptLog bytes.
 */
import { LIMITS, type Progress } from "../queue/types.ts";
import type { ReportPart } from "./protocol.ts";
import { cutText } from "./serialise.ts";

/** At most one report a second and task. */
export const REPORT_INTERVAL_MS = 1_000;

const MESSAGE_MAX_BYTES = 1_024;
const CUT_LINE = `… [log cut at ${LIMITS.attemptLog / 1024} KiB]`;
/** Room for the mark, so that the whole stays inside the limit. */
const LOG_ROOM_BYTES = LIMITS.attemptLog - Buffer.byteLength(CUT_LINE) - 1;

export class AttemptJournal {
  readonly #now: () => number;
  readonly #send: (part: ReportPart) => void;
  #progress: Progress | null = null;
  #lines: string[] = [];
  #roomBytes = LOG_ROOM_BYTES;
  #cut = false;
  #closed = false;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** `now`: monotonic milliseconds. `send` gets each gathered part. */
  constructor(now: () => number, send: (part: ReportPart) => void) {
    this.#now = now;
    this.#send = send;
  }

  /** @throws TypeError when `percent` is not a number. */
  progress(percent: number, message?: string): void {
    if (typeof percent !== "number" || Number.isNaN(percent))
      throw new TypeError("progress: percent must be a number from 0 to 100");
    if (this.#closed) return;
    const text = message === undefined ? null : cutText(String(message), MESSAGE_MAX_BYTES);
    this.#progress = { percent: Math.min(100, Math.max(0, percent)), message: text };
    this.#schedule();
  }

  log(text: string): void {
    if (this.#closed || this.#cut) return;
    for (const line of String(text).toWellFormed().split("\n")) {
      const bytes = Buffer.byteLength(line) + 1;
      if (bytes > this.#roomBytes) {
        if (this.#roomBytes > 64) this.#lines.push(cutText(line, this.#roomBytes));
        this.#lines.push(CUT_LINE);
        this.#cut = true;
        break;
      }
      this.#roomBytes -= bytes;
      this.#lines.push(line);
    }
    this.#schedule();
  }

  /** Ends the gathering; what was not sent yet. Later calls of a handler that lives on are dropped. */
  close(): ReportPart {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    return this.#take();
  }

  #schedule(): void {
    const dueInMs = this.#sentAtMs + REPORT_INTERVAL_MS - this.#now();
    // Sent from here when it is due: a handler that never yields would keep any timer from firing.
    if (dueInMs <= 0 && this.#sentAtMs !== Number.NEGATIVE_INFINITY) return this.#flush();
    if (this.#timer !== null) return;
    // The first part waits a little, so that the lines which a handler begins with travel together.
    const waitMs = this.#sentAtMs === Number.NEGATIVE_INFINITY ? REPORT_INTERVAL_MS / 10 : dueInMs;
    if (this.#sentAtMs === Number.NEGATIVE_INFINITY)
      this.#sentAtMs = this.#now() - REPORT_INTERVAL_MS + waitMs;
    this.#timer = setTimeout(() => this.#flush(), waitMs);
  }

  #flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const part = this.#take();
    if (part.progress === null && part.lines.length === 0) return;
    this.#sentAtMs = this.#now();
    this.#send(part);
  }

  #take(): ReportPart {
    const part = { progress: this.#progress, lines: this.#lines };
    this.#progress = null;
    this.#lines = [];
    return part;
  }
}
