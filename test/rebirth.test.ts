/** A new cluster out of an old one's folder: what it goes on with, and what a crash at each step leaves. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeCommand } from "../src/queue/command-codec.ts";
import { TaskMachine } from "../src/queue/machine.ts";
import { DEFAULT_SETTINGS } from "../src/queue/types.ts";
import { asIndex, asNodeId, asTerm, type Entry } from "../src/raft/types.ts";
import {
  decodeBootstrap,
  decodeEntry,
  encodeBootstrap,
  encodeEnvelope,
} from "../src/replica/envelope.ts";
import { firstConfiguration } from "../src/replica/founding.ts";
import type { BootstrapRecord, RecoveredLog } from "../src/replica/ports.ts";
import { rebirth, type RebirthOptions } from "../src/rebirth.ts";
import { readCurrent } from "../src/storage/current-file.ts";
import { LogFile } from "../src/storage/log-file.ts";
import { openStateDatabase } from "../src/storage/state-database.ts";
import { idAt, newTask, START } from "./queue/machine-harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const N1 = asNodeId("n1");
const JUMP = 1_000_000_000;
const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** The folder of n1, of three: four tasks in the log, of which the state has applied one. */
function survivor(): string {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-rebirth-"));
  folders.push(folder);
  const { file, recovered } = LogFile.open(folder, N1, 0);
  const record: BootstrapRecord = {
    clusterId: "the-old-one",
    createdAt: START,
    members: ["n1", "n2", "n3"].map((id) => ({
      id: asNodeId(id),
      incarnation: id === "n1" ? recovered.identity.incarnation : `folder-of-${id}`,
      url: `http://${id}`,
    })),
    settings: DEFAULT_SETTINGS,
    machineVersion: 1,
  };
  const entries: Entry[] = [
    {
      index: asIndex(1),
      term: asTerm(1),
      kind: "bootstrap",
      data: encodeBootstrap(firstConfiguration(record), record),
    },
  ];
  for (let n = 1; n <= 4; n++) {
    const tasks = [newTask(idAt(START, n))];
    const command = encodeCommand({ type: "submit", tasks });
    const requests = [{ member: asNodeId("n2"), boot: 9, seq: n, command }];
    const data = encodeEnvelope(START + n, n, [], requests);
    entries.push({ index: asIndex(n + 1), term: asTerm(3), kind: "command", data });
  }
  file.commit([{ hardState: { term: asTerm(5), vote: asNodeId("n3") }, entries }]);
  file.bindCluster(record.clusterId);
  file.close();
  const state = openStateDatabase(folder);
  const machine = TaskMachine.open(state.db);
  machine.apply(entries.slice(0, 2).map(decodeEntry));
  machine.flush();
  state.db.close(true);
  return folder;
}

function options(folder: string, more: Partial<RebirthOptions> = {}): RebirthOptions {
  return {
    folder,
    id: N1,
    advertise: "http://n1.new",
    source: join(folder, readCurrent(folder) ?? ""),
    clusterId: "the-new-one",
    now: START + 1_000,
    origin: { kind: "rescue", clusterId: "the-old-one", note: "as a test" },
    ...more,
  };
}

interface Opened {
  readonly log: RecoveredLog;
  readonly machine: TaskMachine;
  readonly close: () => void;
}

/** As a start opens it. */
function open(folder: string): Opened {
  const { file, recovered } = LogFile.open(folder, N1, 1_000_000);
  const state = openStateDatabase(folder);
  const close = (): void => {
    state.db.close(true);
    file.close();
  };
  return { log: recovered, machine: TaskMachine.open(state.db), close };
}

function expectOld(folder: string): void {
  const { log, machine, close } = open(folder);
  expect([log.identity.clusterId, log.lastIndex, log.hardState.term]).toEqual([
    "the-old-one",
    asIndex(5),
    asTerm(5),
  ]);
  expect([machine.clusterId(), machine.applied().index]).toEqual(["the-old-one", asIndex(2)]);
  close();
}

function expectNew(folder: string): void {
  const { log, machine, close } = open(folder);
  const position = { index: asIndex(5 + JUMP), term: asTerm(6) };
  expect(log.identity.clusterId).toBe("the-new-one");
  expect(log.compacted).toEqual(position);
  expect(log.lastIndex).toBe(position.index);
  expect(log.hardState).toEqual({ term: asTerm(6), vote: null });
  expect(machine.applied()).toEqual(position);
  expect(machine.clusterId()).toBe("the-new-one");
  // All four are there: what the log held behind the state was replayed.
  expect(machine.counts().Pending).toBe(4);
  const first = (log.foundations ?? []).find(({ kind }) => kind === "bootstrap");
  if (first === undefined) throw new Error("no entry 1");
  const { record, configuration } = decodeBootstrap(first);
  expect(configuration.voters).toEqual([N1]);
  expect(record.members.map(({ url }) => url)).toEqual(["http://n1.new"]);
  expect(record.origin).toEqual({
    kind: "rescue",
    clusterId: "the-old-one",
    note: "as a test",
    index: asIndex(5),
    term: asTerm(3),
  });
  close();
  expect(readdirSync(folder).filter((name) => /^state-.*\.db$/.test(name))).toHaveLength(1);
}

describe("a new cluster out of an old folder", () => {
  test("has everything that its log held, a new id, and goes on far beyond", () => {
    const folder = survivor();
    const born = rebirth(options(folder));
    expect(born).toEqual({
      clusterId: "the-new-one",
      from: { index: asIndex(5), term: asTerm(3) },
      index: asIndex(5 + JUMP),
      term: asTerm(6),
    });
    expectNew(folder);
  });

  test("gives out no fence again, and knows no session of the old members", () => {
    const folder = survivor();
    rebirth(options(folder));
    const { machine, close } = open(folder);
    const claim = encodeCommand({
      type: "claim",
      worker_id: "w",
      principal: "p",
      request_id: "r",
      queues: null,
      names: ["work"],
      star: false,
      max: 1,
      local: null,
    });
    // n2 again, in its first start: the old one was in its ninth.
    const [answer] = machine.apply([
      {
        index: asIndex(6 + JUMP),
        term: asTerm(6),
        now: START + 5_000,
        seed: 1,
        requests: [{ member: asNodeId("n2"), boot: 1, seq: 1, command: claim }],
        acks: [],
        bootstrap: null,
      },
    ]);
    expect(answer?.answer).toMatchObject({ ok: true });
    const [lease] = machine.running();
    expect(lease?.fence).toBe(JUMP + 1);
    close();
  });

  test.each(["mark", "switch"] as const)("a crash before %s leaves the old one", (at) => {
    const folder = survivor();
    const onStep = (step: string): void => {
      if (step === at) throw new Error("power is gone");
    };
    expect(() => rebirth(options(folder, { onStep }))).toThrow("power is gone");
    expectOld(folder);
    rebirth(options(folder));
    expectNew(folder);
  });

  test("a crash behind the switch leaves the new one", () => {
    const folder = survivor();
    const onStep = (step: string): void => {
      if (step === "finish") throw new Error("power is gone");
    };
    expect(() => rebirth(options(folder, { onStep }))).toThrow("power is gone");
    expectNew(folder);
  });

  test("is refused without a state to go on from, and nothing changes", () => {
    const folder = survivor();
    const source = join(folder, "state-9-deadbeef.db");
    expect(() => rebirth(options(folder, { source }))).toThrow("there is no state database");
    expectOld(folder);
  });
});
