/**
 * Preloaded into a member by commit.ts: counts the frames that it sends to its peers and what it hands to its
 * threads, and writes the sums to $BENCH_COUNTS/PID.json whenever SIGUSR2 asks for them.
 */
import { renameSync, writeFileSync } from "node:fs";
import { isMainThread } from "node:worker_threads";

/** Since the start. */
export interface CommitCounts {
  frames: number;
  bytes: number;
  posts: number;
}

if (isMainThread) {
  const counts: CommitCounts = { frames: 0, bytes: 0, posts: 0 };
  globalThis.WebSocket = class extends WebSocket {
    override send(data: Parameters<WebSocket["send"]>[0]): void {
      counts.frames += 1;
      counts.bytes += typeof data === "string" || data instanceof Blob ? 0 : data.byteLength;
      super.send(data);
    }
  };
  globalThis.Worker = class extends Worker {
    override postMessage(message: unknown, transfer: unknown = []): void {
      counts.posts += 1;
      super.postMessage(message, transfer as Transferable[]);
    }
  };
  process.on("SIGUSR2", () => {
    const path = `${process.env.BENCH_COUNTS}/${process.pid}.json`;
    writeFileSync(`${path}.new`, JSON.stringify(counts));
    renameSync(`${path}.new`, path);
  });
}
