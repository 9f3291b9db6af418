/** CPU and memory of processes and of the machine, read from /proc: from outside, so that nothing can embellish it. */
import { readdirSync, readFileSync } from "node:fs";

const TICKS_PER_SECOND = 100;
const MIB = 1024;

/**
 * Seconds of CPU that the living threads of process `pid` have used so far, to the nanosecond (the process's own sum has
 * ticks of ten milliseconds); 0 when it is gone.
 */
function cpuSeconds(pid: number): number {
  let ns = 0;
  for (const thread of threadsOf(pid))
    ns += Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(" ")[0] ?? 0);
  return ns / 1e9;
}

function threadsOf(pid: number): readonly string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

export interface Memory {
  /** Resident now, MiB. */
  readonly rss: number;
  /** Its share of what is shared counted by parts, MiB. */
  readonly pss: number;
  /** The most that was ever resident, MiB. */
  readonly peak: number;
}

export function memoryOf(pid: number): Memory {
  const status = read(`/proc/${pid}/status`);
  return {
    rss: kibibytes(status, "VmRSS") / MIB,
    peak: kibibytes(status, "VmHWM") / MIB,
    pss: kibibytes(read(`/proc/${pid}/smaps_rollup`), "Pss") / MIB,
  };
}

/** Seconds of CPU that the whole machine has used since its start, by everybody. */
export function machineSeconds(): number {
  const [line = ""] = read("/proc/stat").split("\n");
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND;
}

/** What the CPU was used for between two looks, in cores. */
export interface CpuUse {
  readonly client: number;
  /** All members together. */
  readonly members: number;
  readonly byMember: Readonly<Record<string, number>>;
  /** Everybody else on the machine: what makes a figure doubtful. */
  readonly others: number;
}

/** Begins to count; what is returned ends it. `own`: processes of the harness beside this one. */
export function watchCpu(
  pids: Readonly<Record<string, number>>,
  own: readonly number[] = [],
): () => CpuUse {
  const selfSeconds = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6 + own.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  };
  const look = () => ({
    at: performance.now() / 1_000,
    self: selfSeconds(),
    machine: machineSeconds(),
    members: Object.entries(pids).map(([id, pid]) => [id, cpuSeconds(pid)] as const),
  });
  const before = look();
  return () => {
    const after = look();
    const seconds = Math.max(0.001, after.at - before.at);
    const byMember = Object.fromEntries(
      after.members.map(([id, used], i) => [
        id,
        Math.max(0, used - (before.members[i]?.[1] ?? 0)) / seconds,
      ]),
    );
    const client = (after.self - before.self) / seconds;
    const members = Object.values(byMember).reduce((sum, cores) => sum + cores, 0);
    const all = (after.machine - before.machine) / seconds;
    return { client, members, byMember, others: Math.max(0, all - client - members) };
  };
}

/** Waits up to `maxMs` for the machine to be quiet. */
export async function quiet(maxMs: number): Promise<void> {
  const end = performance.now() + maxMs;
  while (performance.now() < end) {
    const before = machineSeconds();
    await Bun.sleep(300);
    if ((machineSeconds() - before) / 0.3 < 0.3) return;
  }
}

function kibibytes(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
