/**
 * Installs a snapshot into a member's folder, and ends itself with SIGKILL before the step that it is told. Started by
 * install-crash.test.ts: FOLDER MANIFEST-FILE BYTES-FILE STEP
 */
import { asNodeId } from "../../src/raft/types.ts";
import { foundationsOf } from "../../src/replica/snapshots.ts";
import type { SnapshotManifest } from "../../src/replica/ports.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { POSITION_QUERY } from "../../src/queue/schema.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { SqliteSnapshots } from "../../src/storage/sqlite-snapshots.ts";
import { connectState, openStateDatabase } from "../../src/storage/state-database.ts";

const [folder = "", manifestFile = "", bytesFile = "", step = ""] = process.argv.slice(2);
const manifest = (await Bun.file(manifestFile).json()) as SnapshotManifest;
const bytes = await Bun.file(bytesFile).bytes();

let state = openStateDatabase(folder);
const machine = TaskMachine.open(state.db);
const log = new SqliteLog(folder, asNodeId("n1"));
await log.open(1_000_000);
const snapshots = new SqliteSnapshots({
  folder,
  log,
  currentState: () => state.name,
  positionQuery: POSITION_QUERY,
  reopen: (name) => {
    const before = state.db;
    state = connectState(folder, name);
    machine.reopen(state.db);
    before.close();
  },
  onStep: (reached) => {
    if (reached === step) process.kill(process.pid, "SIGKILL");
  },
});
await snapshots.receive(manifest);
for (let offset = 0; offset < bytes.length; offset += 50_000) {
  const data = bytes.slice(offset, offset + 50_000);
  await snapshots.write(manifest.id, offset, { data, crc: Bun.hash.crc32(data) });
}
await snapshots.verify(manifest.id);
await snapshots.install(manifest, foundationsOf(manifest));
await snapshots.close();
await log.close();
state.db.close();
