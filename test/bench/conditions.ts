/** Under which conditions figures were taken: without them they say nothing. */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { availableParallelism, cpus, release, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { machineSeconds } from "./processes.ts";
import { percentile } from "./statistics.ts";

const SYNCS = 300;
const LOOK_MS = 1_000;

export interface Conditions {
  readonly at: string;
  readonly commit: string;
  readonly bun: string;
  readonly kernel: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  readonly filesystem: string;
  /** Appending 4 KiB and syncing it, µs. */
  readonly fdatasyncUs: { readonly p50: number; readonly p99: number };
  /** Cores that others used while nothing ran here. */
  readonly othersBefore: number;
}

export async function readConditions(): Promise<Conditions> {
  const before = machineSeconds();
  await Bun.sleep(LOOK_MS);
  const othersBefore = (machineSeconds() - before) / (LOOK_MS / 1_000);
  const folder = process.env.BENCH_DIR ?? tmpdir();
  return {
    at: new Date().toISOString(),
    commit: await wordsOf("git", "-C", import.meta.dir, "describe", "--always", "--dirty"),
    bun: Bun.version,
    kernel: release(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    filesystem: await wordsOf("stat", "-f", "-c", "%T", folder),
    fdatasyncUs: syncTimes(folder),
    othersBefore,
  };
}

export function conditionsText(c: Conditions): string {
  return [
    `${c.at}, commit ${c.commit}, Bun ${c.bun}, Linux ${c.kernel}`,
    `${c.cores} cores (${c.cpu}), ${c.memoryGib} GiB, ${c.filesystem}; fdatasync after 4 KiB: p50 ${c.fdatasyncUs.p50.toFixed(0)} µs, p99 ${c.fdatasyncUs.p99.toFixed(0)} µs`,
    `clients, workers and members share these cores; others used ${c.othersBefore.toFixed(2)} cores before the run`,
  ].join("\n");
}

function syncTimes(folder: string): Conditions["fdatasyncUs"] {
  const own = mkdtempSync(join(folder, "flotilla-sync-"));
  const file = openSync(join(own, "probe"), "w");
  const block = new Uint8Array(4_096);
  const times: number[] = [];
  for (let i = 0; i < SYNCS; i++) {
    const from = performance.now();
    writeSync(file, block);
    fdatasyncSync(file);
    times.push((performance.now() - from) * 1_000);
  }
  closeSync(file);
  rmSync(own, { recursive: true });
  return { p50: percentile(times, 50), p99: percentile(times, 99) };
}

async function wordsOf(...command: string[]): Promise<string> {
  try {
    const child = Bun.spawn(command, { stdout: "pipe", stderr: "ignore" });
    return (await new Response(child.stdout).text()).trim() || "unknown";
  } catch {
    return "unknown";
  }
}

/** The speed of a path may depend on it, so it stands beside the figures. */
export function commandLine(): string {
  return `bun run bench ${process.argv.slice(2).join(" ")}`.trim();
}
