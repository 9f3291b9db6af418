/**
 * What a process wrote and did not sync, as a tracer saw it from outside: the bytes that a loss of power may
 * take away though the page cache, which survives a kill, still shows them.
 *
 * Reads the lines of `strace -f -y -s 0` (see TRACE_WORDS). It does not follow names: a file that was created,
 * renamed or removed without a sync of its folder counts as created, renamed or removed for good.
 */
import { open } from "node:fs/promises";

/** Before the command to trace. The traced process is our own child (-D), so that a kill hits it. */
export function traceWords(output: string): readonly string[] {
  const calls = "pwrite64,pwritev,ftruncate,fdatasync,fsync,rename,unlink";
  return ["strace", "-D", "-f", "-y", "-s", "0", "-o", output, "-e", `trace=${calls}`];
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

interface Write extends Range {
  /** False while the call has not returned: a sync that begins now does not cover it. */
  done: boolean;
}

/** A call that a process is in the middle of. */
type Open =
  | { readonly kind: "write"; readonly write: Write }
  /** The writes that a sync covers if it succeeds. */
  | { readonly kind: "sync"; readonly path: string; readonly covers: readonly Write[] };

export class WriteJournal {
  readonly #unsynced = new Map<string, Set<Write>>();
  readonly #open = new Map<string, Open>();
  /** Files with vectored writes, which are not followed: they would be judged too kindly. */
  readonly notFollowed = new Set<string>();
  /** Syncs that succeeded. */
  syncs = 0;
  /** The newest traced process is gone, and its trace complete. */
  ended = false;

  /**
   * Traces of processes that ran on the same files one after the other, oldest first: what a killed process had
   * not synced is still in the page cache of its successor, and still lost with the power unless that one syncs.
   */
  static of(...traces: readonly string[]): WriteJournal {
    const journal = new WriteJournal();
    for (const trace of traces) {
      journal.ended = false;
      journal.#finish();
      for (const line of trace.split("\n")) journal.line(line);
    }
    return journal;
  }

  /** Bytes written since the newest sync that covers them, by path, in the order of the writes. */
  unsynced(): ReadonlyMap<string, readonly Range[]> {
    const found = new Map<string, readonly Range[]>();
    for (const [path, writes] of this.#unsynced) if (writes.size > 0) found.set(path, [...writes]);
    return found;
  }

  /** What a process that is gone was in the middle of is over: a write happened, a sync promised nothing. */
  #finish(): void {
    for (const call of this.#open.values()) if (call.kind === "write") call.write.done = true;
    this.#open.clear();
  }

  line(line: string): void {
    const [, pid, rest] = /^(\d+)\s+(.*)$/.exec(line) ?? [];
    if (pid === undefined || rest === undefined) return;
    if (rest.startsWith("+++ killed by") || rest.startsWith("+++ exited")) {
      this.ended = true;
      return;
    }
    const resumed = /^<\.\.\. \w+ resumed>.*= (-?\d+)/.exec(rest);
    if (resumed !== null) {
      const call = this.#open.get(pid);
      this.#open.delete(pid);
      if (call !== undefined) this.#returned(call, Number(resumed[1]));
      return;
    }
    const result = / = (-?\d+)(?: |$)/.exec(rest);
    const call = this.#entered(rest);
    if (call === null) return;
    if (result === null) this.#open.set(pid, call);
    else this.#returned(call, Number(result[1]));
  }

  #entered(rest: string): Open | null {
    const write = /^pwrite64\(\d+<([^>]*)>, .*?, (\d+), (\d+)(?:\)| <unfinished)/.exec(rest);
    if (write !== null) {
      const [, path = "", length, offset] = write;
      const entry: Write = { offset: Number(offset), length: Number(length), done: false };
      let writes = this.#unsynced.get(path);
      if (writes === undefined) this.#unsynced.set(path, (writes = new Set()));
      writes.add(entry);
      return { kind: "write", write: entry };
    }
    const sync = /^f(?:data)?sync\(\d+<([^>]*)>/.exec(rest);
    if (sync !== null) {
      const [, path = ""] = sync;
      const covers = [...(this.#unsynced.get(path) ?? [])].filter(({ done }) => done);
      return { kind: "sync", path, covers };
    }
    const unlinked = /^unlink\("([^"]*)"/.exec(rest);
    if (unlinked?.[1] !== undefined) this.#unsynced.delete(unlinked[1]);
    const renamed = /^rename\("([^"]*)", "([^"]*)"/.exec(rest);
    if (renamed?.[1] !== undefined && renamed[2] !== undefined) {
      const writes = this.#unsynced.get(renamed[1]);
      this.#unsynced.delete(renamed[1]);
      if (writes === undefined) this.#unsynced.delete(renamed[2]);
      else this.#unsynced.set(renamed[2], writes);
    }
    const vectored = /^pwritev\d*\(\d+<([^>]*)>/.exec(rest);
    if (vectored?.[1] !== undefined) this.notFollowed.add(vectored[1]);
    return null;
  }

  #returned(call: Open, result: number): void {
    if (call.kind === "write") {
      call.write.done = true;
      return;
    }
    if (result !== 0) return;
    this.syncs += 1;
    const writes = this.#unsynced.get(call.path);
    for (const write of call.covers) writes?.delete(write);
  }
}

/** Bytes that a disk writes as one. */
const SECTOR = 512;

/**
 * Takes away from the files what was not synced: each write as a whole, a part of it in sectors, or not at
 * all, as `keep` says (0: nothing is kept, 1: everything); what is taken reads as zeros, as a page that was
 * never written would. Later writes over the same bytes are taken too. Returns the bytes taken.
 */
export async function losePower(
  journal: WriteJournal,
  folder: string,
  keep: () => number,
): Promise<number> {
  let taken = 0;
  for (const path of journal.notFollowed)
    if (path.startsWith(`${folder}/`)) throw new Error(`vectored writes to ${path}`);
  for (const [path, ranges] of journal.unsynced()) {
    if (!path.startsWith(`${folder}/`) || path.endsWith("-shm")) continue;
    const file = await open(path, "r+").catch(() => null);
    if (file === null) continue;
    try {
      const { size } = await file.stat();
      for (const { offset, length } of ranges) {
        const share = keep();
        const kept = share >= 1 ? length : Math.floor((share * length) / SECTOR) * SECTOR;
        const from = offset + Math.min(kept, length);
        const end = Math.min(size, offset + length);
        if (end <= from) continue;
        await file.write(new Uint8Array(end - from), 0, end - from, from);
        taken += end - from;
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }
  return taken;
}
