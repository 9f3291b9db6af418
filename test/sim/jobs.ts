/**
 * A batch over several processes. What each of them prints goes on line by line, and after each seed it says what it has
 * counted so far: so nothing is lost, whenever it ends, and by whatever.
 */
import type { BatchOptions } from "./batch.ts";
import { nothingRan, type Summary } from "./summary.ts";

/** Begins the line in which a process tells its parent what it has counted so far. */
const SUMMARY = "summary ";
/** The last line of one that ran all its seeds. */
const ENDED = "all seeds ran";

/** For the parent, after each seed. */
export function tellSummary(summary: Summary): void {
  console.log(SUMMARY + JSON.stringify(summary));
}

/** For the parent, at the end. */
export function tellEnd(): void {
  console.log(ENDED);
}

export class Jobs {
  readonly parts: Summary[];
  readonly #options: BatchOptions;
  readonly #running: Bun.Subprocess[] = [];
  #stopped = false;

  constructor(options: BatchOptions) {
    this.#options = options;
    const processes = Math.min(options.jobs, options.count);
    this.parts = Array.from({ length: processes }, nothingRan);
  }

  /** The next seed of each process. */
  get next(): number[] {
    return this.parts.map((_, i) => this.#nextOf(i));
  }

  /** Each process takes every jobs-th seed, so that they are even whenever the time is up. Resolves with how many died. */
  async run(): Promise<number> {
    const died = await Promise.all(this.parts.map((_, i) => this.#process(i)));
    return died.reduce((sum, each) => sum + each, 0);
  }

  stop(): void {
    this.#stopped = true;
    for (const child of this.#running) child.kill("SIGKILL");
  }

  #nextOf(i: number): number {
    return this.#options.from + i + (this.parts[i]?.ran ?? 0) * this.parts.length;
  }

  /** How many died, 0 or 1: one that was stopped did not. */
  async #process(i: number): Promise<number> {
    const { count, minutes, override, first, announce } = this.#options;
    const step = this.parts.length;
    const flags = {
      seeds: Math.ceil((count - i) / step),
      from: this.#options.from + i,
      step,
      minutes,
      override: JSON.stringify(override),
    };
    const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
    if (first) args.push("--first");
    if (announce) args.push("--announce");
    const main = new URL("main.ts", import.meta.url).pathname;
    const command = [process.execPath, "--no-orphans", "run", main, ...args, "--child"];
    const child = Bun.spawn(command, { stdout: "pipe", stderr: "inherit" });
    this.#running.push(child);
    let ended = false;
    for await (const line of linesOf(child.stdout)) {
      if (line === ENDED) ended = true;
      else if (!line.startsWith(SUMMARY)) console.log(line);
      else {
        const part = JSON.parse(line.slice(SUMMARY.length)) as Summary;
        this.parts[i] = part;
        if (first && part.failed > 0) this.stop();
      }
    }
    await child.exited;
    if (ended || this.#stopped) return 0;
    const how = child.signalCode ?? `code ${child.exitCode}`;
    console.error(
      `the process with every ${step}th seed from ${flags.from} died (${how}) in seed ${this.#nextOf(i)}`,
    );
    return 1;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
}
