/** Reads the traces that the `traced` handler leaves: how many handlers were entered, and when. */
import { readFile } from "node:fs/promises";

export interface CapReport {
  /** Entries in all. */
  readonly entered: number;
  /** Handlers entered at once, at most. */
  readonly most: number;
  /** Looked at every 10 ms, from the first time that all slots were busy until fewer tasks wait than there are slots. */
  readonly samples: number;
  /** Of them, with all slots busy. */
  readonly full: number;
  /** From the first entry to the one that made all slots busy, in milliseconds. */
  readonly rampMs: number;
}

const SAMPLE_MS = 10;

export async function readCap(trace: string, slots: number): Promise<CapReport> {
  const steps = (await readFile(trace, "utf8"))
    .trim()
    .split("\n")
    .map((line) => line.split(" "))
    .map(([sign, at]) => ({ step: sign === "+" ? 1 : -1, at: Number(at) }))
    .sort((a, b) => a.at - b.at || a.step - b.step);
  let running = 0;
  let most = 0;
  const course: { readonly at: number; readonly running: number }[] = [];
  for (const { step, at } of steps) {
    running += step;
    most = Math.max(most, running);
    course.push({ at, running });
  }
  const starts = steps.filter(({ step }) => step === 1);
  const until = starts.at(-slots)?.at ?? 0;
  // Never all of them: there is nothing to look at.
  const from = course.find((point) => point.running === slots)?.at ?? until;
  let samples = 0;
  let full = 0;
  for (let at = from; at < until; at += SAMPLE_MS) {
    samples += 1;
    if ((course.findLast((point) => point.at <= at)?.running ?? 0) === slots) full += 1;
  }
  return { entered: starts.length, most, samples, full, rampMs: from - (starts[0]?.at ?? from) };
}
