/**
 * The calls that make data durable, counted from outside by strace, member by member: so that no figure of this
 * harness was bought with a weaker promise. strace slows what it watches, so that no rate is taken meanwhile.
 */
import { existsSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const CALLS = "fsync,fdatasync";
const ATTACH_MS = 1_000;
/** What strace prints: `PID SECONDS.MICROS CALL(…) = 0 <SECONDS>`, in two lines when another thread's came between. */
const LINE =
  /^(\d+) +(\d+\.\d+) (?:<\.\.\. )?(fsync|fdatasync)(?:\(| resumed).*?(?:= (-?\d+).*<(\d+\.\d+)>)?$/;

/** One call that returned; wall clock, ms. */
export interface Sync {
  readonly call: string;
  readonly beganAt: number;
  readonly endedAt: number;
}

/** Why there are no counts here; null when there are. */
export function whyNoCounts(): string | null {
  return Bun.which("strace") === null
    ? "fsyncs were not counted: strace is not installed here (apt-get install strace)"
    : null;
}

/** Watches members until `stop`. @throws when strace may not attach. */
export class FsyncWatch {
  readonly #traces: { id: string; child: Bun.Subprocess; path: string }[] = [];

  static async start(pids: Readonly<Record<string, number>>): Promise<FsyncWatch> {
    const watch = new FsyncWatch();
    for (const [id, pid] of Object.entries(pids)) {
      const path = join(tmpdir(), `flotilla-strace-${process.pid}-${id}`);
      const child = Bun.spawn(
        ["strace", "-f", "-ttt", "-T", "-e", `trace=${CALLS}`, "-o", path, "-p", String(pid)],
        { stdio: ["ignore", "ignore", "ignore"] },
      );
      watch.#traces.push({ id, child, path });
    }
    await Bun.sleep(ATTACH_MS);
    for (const { id, child } of watch.#traces) {
      if (child.exitCode !== null) throw new Error(`strace could not attach to ${id}`);
    }
    return watch;
  }

  /** By member, in order of their ends. */
  async stop(): Promise<Readonly<Record<string, readonly Sync[]>>> {
    const all: Record<string, readonly Sync[]> = {};
    for (const { id, child, path } of this.#traces) {
      child.kill("SIGINT");
      await child.exited;
      all[id] = existsSync(path) ? syncsIn(readFileSync(path, "utf8")) : [];
      rmSync(path, { force: true });
    }
    return all;
  }
}

function syncsIn(trace: string): readonly Sync[] {
  const begun = new Map<string, number>();
  const syncs: Sync[] = [];
  for (const line of trace.split("\n")) {
    const [, pid = "", seconds = "", call = "", result, took = "0"] = LINE.exec(line) ?? [];
    if (pid === "") continue;
    const at = Number(seconds) * 1_000;
    if (result === undefined) {
      begun.set(pid, at);
      continue;
    }
    const beganAt = line.includes("resumed") ? (begun.get(pid) ?? at) : at;
    syncs.push({ call, beganAt, endedAt: beganAt + Number(took) * 1_000 });
  }
  return syncs.sort((a, b) => a.endedAt - b.endedAt);
}

/**
 * How many members finished a sync within each of the `windows` (a lone submit, from its sending to its answer): the
 * fewest over all windows. At least two of three have to.
 */
export function fewestMembersSynced(
  syncs: Readonly<Record<string, readonly Sync[]>>,
  windows: readonly { readonly from: number; readonly to: number }[],
): number {
  const counts = windows.map(
    ({ from, to }) =>
      Object.values(syncs).filter((own) =>
        own.some(({ beganAt, endedAt }) => beganAt >= from && endedAt <= to),
      ).length,
  );
  return Math.min(...counts);
}
