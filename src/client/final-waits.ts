/**
 * Waits for the final state of tasks by long polls. Each holds a connection, of which a runtime has a few
 * hundred: so only some of the waits are held at once, and when there are more of them they take turns.
 */
import type { Connection } from "./connection.ts";
import { FlotillaError } from "./error.ts";
import type { Task } from "./types.ts";

/** Below the 256 connections of Bun's fetch, with room for submits. */
const HELD_MAX = 128;
/** With more than these, a turn is short: those who wait for a turn do not wait for long. */
const HELD_LONG_MAX = 64;
const LONG_TURN_MS = 20_000;
const SHORT_TURN_MS = 1_000;
/** For the answer of a wait whose time is up. */
const ANSWER_MS = 1_000;

export interface WaitOptions {
  /** Infinity: however long it takes, outages included. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

export class FinalWaits {
  readonly #connection: Connection;
  /** Those who wait for a turn; called with the turn. */
  readonly #queue = new Set<() => void>();
  #held = 0;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** The task once it is final. @throws FlotillaError timeout when it is not in time */
  async until(id: string, { timeoutMs, signal }: WaitOptions): Promise<Task> {
    const deadline = performance.now() + timeoutMs;
    let why = "";
    for (;;) {
      if (await this.#turn(deadline - performance.now(), signal)) {
        try {
          const task = await this.#ask(id, deadline - performance.now(), signal);
          if (isFinal(task)) return task;
          why = `it is ${task.status}`;
        } catch (error) {
          if (!(error instanceof FlotillaError && error.code === "timeout")) throw error;
          why = error.message;
        } finally {
          this.#endTurn();
        }
      }
      if (performance.now() >= deadline) {
        throw new FlotillaError("timeout", `task ${id} is not final after ${timeoutMs} ms: ${why}`);
      }
    }
  }

  /** False when the time is up, or the caller gave up, before there was a turn. */
  #turn(leftMs: number, signal: AbortSignal | undefined): Promise<boolean> | true {
    if (this.#held < HELD_MAX || signal?.aborted === true) {
      this.#held += 1;
      return true;
    }
    return new Promise((resolve) => {
      const done = (has: boolean): void => {
        this.#queue.delete(take);
        if (timer !== null) clearTimeout(timer);
        signal?.removeEventListener("abort", giveUp);
        resolve(has);
      };
      const take = (): void => done(true);
      // An aborted one takes a turn that ends at once, with the error for it.
      const giveUp = (): void => {
        this.#held += 1;
        done(true);
      };
      const timer =
        leftMs === Infinity
          ? null
          : setTimeout(() => done(false), Math.min(Math.max(1, leftMs), 2 ** 31 - 1));
      signal?.addEventListener("abort", giveUp);
      this.#queue.add(take);
    });
  }

  /** The turn goes on to whoever waited longest. */
  #endTurn(): void {
    const [next] = this.#queue;
    if (next === undefined) this.#held -= 1;
    else next();
  }

  #ask(id: string, leftMs: number, signal: AbortSignal | undefined): Promise<Task> {
    const turnMs = this.#held > HELD_LONG_MAX ? SHORT_TURN_MS : LONG_TURN_MS;
    const heldMs = Math.max(0, Math.min(turnMs, leftMs));
    const path = `/api/tasks/${encodeURIComponent(id)}?wait=${(heldMs / 1_000).toFixed(3)}`;
    // What holds the wait may answer a moment after it. An outage ends the turn, not the wait.
    const timeoutMs =
      Math.min(Math.max(0, leftMs), heldMs + this.#connection.timeoutMs) + ANSWER_MS;
    return this.#connection.json<Task>("GET", path, { timeoutMs, heldMs, signal });
  }
}

function isFinal({ status }: Task): boolean {
  switch (status) {
    case "Completed":
    case "Failed":
    case "Cancelled":
      return true;
    case "Pending":
    case "Running":
      return false;
  }
}
