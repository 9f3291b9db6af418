/** In the log thread of a member under test: each commit takes BENCH_FSYNC_MS longer, as if its fsync did. */
import { LogFile } from "../../src/storage/log-file.ts";

const delayMs = Number(process.env.BENCH_FSYNC_MS ?? 0);
// oxlint-disable-next-line typescript/unbound-method -- called with the file below
const { commit } = LogFile.prototype;

LogFile.prototype.commit = function slowCommit(...ops: Parameters<LogFile["commit"]>) {
  Bun.sleepSync(delayMs);
  return commit.apply(this, ops);
};
