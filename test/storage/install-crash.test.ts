/**
 * A process that is killed in the middle of an install, before each of its steps, on real files: what starts on the
 * folder afterwards is a member as it was before, or as it is afterwards, and never something between.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asIndex, asNodeId, asTerm, type Entry } from "../../src/raft/types.ts";
import { decodeEntry, encodeBootstrap } from "../../src/replica/envelope.ts";
import { firstConfiguration } from "../../src/replica/founding.ts";
import type { BootstrapRecord, SnapshotManifest } from "../../src/replica/ports.ts";
import { configurationOf } from "../../src/replica/snapshots.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import { POSITION_QUERY } from "../../src/queue/schema.ts";
import { DEFAULT_SETTINGS } from "../../src/queue/types.ts";
import { SqliteLog } from "../../src/storage/sqlite-log.ts";
import { type InstallStep, SqliteSnapshots } from "../../src/storage/sqlite-snapshots.ts";
import { openStateDatabase } from "../../src/storage/state-database.ts";
import { Harness } from "../queue/machine-harness.ts";
import { entry, hard, MEMBER, write } from "./entries.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(60_000);

const RECORD: BootstrapRecord = {
  clusterId: "c1",
  createdAt: 1,
  members: [
    { id: MEMBER, incarnation: "a", url: "http://n1" },
    { id: asNodeId("n2"), incarnation: "b", url: "http://n2" },
  ],
  settings: DEFAULT_SETTINGS,
  machineVersion: 1,
};
const BEFORE: readonly InstallStep[] = ["rename", "mark", "switch"];
const AFTER: readonly InstallStep[] = ["reopen", "remove", "finish"];

let folder = "";
/** A member's folder that is far behind: nine entries, seven of them applied. */
let behind = "";
let manifest: SnapshotManifest;
let oldHash = "";
let newHash = "";

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "flotilla-install-"));
  behind = join(folder, "behind");
  mkdirSync(behind);
  const configuration = firstConfiguration(RECORD);
  const first: Entry = {
    index: asIndex(1),
    term: asTerm(1),
    kind: "bootstrap",
    data: encodeBootstrap(configuration, RECORD),
  };
  const entries = [first, ...Array.from({ length: 8 }, (_, i) => entry(i + 2, 1, "", "noop"))];
  const { db } = openStateDatabase(behind);
  const machine = TaskMachine.open(db);
  machine.apply(entries.slice(0, 7).map(decodeEntry));
  machine.flush();
  oldHash = machine.hash();
  db.close();
  const log = new SqliteLog(behind, MEMBER);
  await log.open(1_000);
  await write(log, { hardState: hard(1), entries });
  await log.close();

  const source = join(folder, "source");
  mkdirSync(source);
  const state = openStateDatabase(source);
  const harness = new Harness({}, state.db);
  for (let i = 0; i < 200; i++) harness.submit({ payload: JSON.stringify("x".repeat(1_500)) });
  harness.machine.flush();
  newHash = harness.machine.hash();
  const snapshots = new SqliteSnapshots({
    folder: source,
    log: new SqliteLog(source, MEMBER),
    currentState: () => state.name,
    positionQuery: POSITION_QUERY,
    reopen: () => undefined,
  });
  const copy = await snapshots.create();
  const { data } = await snapshots.read(copy.id, 0, copy.bytes);
  manifest = { ...copy, configuration, bootstrap: RECORD };
  writeFileSync(join(folder, "bytes"), data);
  writeFileSync(join(folder, "manifest"), JSON.stringify(manifest));
  await snapshots.close();
  state.db.close();
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Installs in a process of its own, which dies before `step`. Answers how it ended. */
async function install(victim: string, step: InstallStep | "never"): Promise<string> {
  const script = join(import.meta.dir, "install-process.ts");
  const files = [victim, join(folder, "manifest"), join(folder, "bytes"), step];
  const child = Bun.spawn(["bun", script, ...files], { stdout: "pipe", stderr: "pipe" });
  const said = await new Response(child.stderr).text();
  await child.exited;
  return child.signalCode === null ? `code ${child.exitCode}${said}` : `${child.signalCode}`;
}

/** What a start finds: opens log and state as the member does. */
async function found(victim: string): Promise<{
  hash: string;
  applied: number;
  compacted: number;
  last: number;
  members: string[];
}> {
  const state = openStateDatabase(victim);
  const machine = TaskMachine.open(state.db);
  const log = new SqliteLog(victim, MEMBER);
  try {
    const { compacted, lastIndex, foundations, tail } = await log.open(1_000_000);
    const founding = [...(foundations ?? []), ...tail].filter(({ kind }) => kind === "bootstrap");
    return {
      hash: machine.hash(),
      applied: machine.applied().index,
      compacted: compacted.index,
      last: lastIndex,
      members: Object.keys(configurationOf(foundations ?? [])?.members ?? {}).concat(
        founding.map(() => "founded"),
      ),
    };
  } finally {
    await log.close();
    state.db.close();
  }
}

function leftOvers(victim: string): string[] {
  const { name, db } = openStateDatabase(victim);
  db.close();
  return readdirSync(victim).filter(
    (file) => !/^(?:CURRENT|log\.db)/.test(file) && !file.startsWith(name),
  );
}

test.concurrent.each([...BEFORE, ...AFTER])("killed before the step `%s`", async (step) => {
  const victim = join(folder, step);
  cpSync(behind, victim, { recursive: true });
  expect(await install(victim, step)).toBe("SIGKILL");
  const { index } = manifest;
  const now = { hash: newHash, applied: index, compacted: index, last: index };
  const installed = { ...now, members: ["n1", "n2", "founded"] };
  if (BEFORE.includes(step)) {
    expect(await found(victim)).toEqual({
      hash: oldHash,
      applied: 7,
      compacted: 0,
      last: 9,
      members: ["founded"],
    });
    expect(await install(victim, "never")).toBe("code 0");
  }
  expect(await found(victim)).toEqual(installed);
  expect(leftOvers(victim)).toEqual([]);
});
