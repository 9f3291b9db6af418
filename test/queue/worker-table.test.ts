import { expect, test } from "bun:test";
import { asNodeId } from "../../src/raft/types.ts";
import type { RunningLease } from "../../src/queue/state.ts";
import type { Claim } from "../../src/queue/types.ts";
import { WorkerTable } from "../../src/queue/worker-table.ts";
import { ManualClock } from "../storage/manual-clock.ts";

const claim = (principal: string): Claim => ({
  worker_id: "w",
  request_id: "r",
  principal,
  queues: null,
  names: [`of-${principal}`],
  star: false,
  max: 1,
  local: null,
});

const lease = (principal: string, local: RunningLease["local"] = null): RunningLease => ({
  task_id: `task-of-${principal}`,
  attempt: 1,
  fence: 1,
  name: "n",
  queue: "default",
  worker: "w",
  principal,
  local,
  started_at: 0,
  timeout_at: null,
  cancelling: false,
  seen: true,
  confirmed: 1,
});

test("two principals with one worker id are two workers, each with what it runs", () => {
  const table = new WorkerTable(new ManualClock());
  table.claimed(claim("ann"), "ok");
  table.claimed(claim("bob"), "ok");
  const views = table.views([lease("ann"), lease("cid")]);
  expect(
    views.map(({ id, principal, names, running }) => [
      id,
      principal,
      names,
      running.map(({ task_id }) => task_id),
    ]),
  ).toEqual([
    ["w", "ann", ["of-ann"], ["task-of-ann"]],
    ["w", "bob", ["of-bob"], []],
    ["w", "cid", null, ["task-of-cid"]],
  ]);
});

test("who is told to be quiet is whoever bears the id", () => {
  const table = new WorkerTable(new ManualClock());
  table.claimed(claim("ann"), "ok");
  table.claimed(claim("bob"), "ok");
  expect(table.has("w")).toBe(true);
  expect(table.has("x")).toBe(false);
  table.direct("w", "quiet");
  expect(table.claimed(claim("ann"), "ok")).toBe("quiet");
  expect(table.beat("w", "bob", null, "ok")).toBe("quiet");
});

test("what a member says of its own executors is not said of an outside worker of that name", () => {
  const table = new WorkerTable(new ManualClock());
  const member = asNodeId("n1");
  const info = { member, slots: 4, names: ["n"], stuck: 1, kills: 2, restarts: 3 };
  const local = { id: "w", info };
  table.claimed(claim("ann"), "ok");
  const slots = (leases: RunningLease[]) =>
    table.views(leases, local).map((view) => [view.principal, view.member, view.slots]);
  expect(slots([])).toEqual([
    ["", "n1", 4],
    ["ann", null, null],
  ]);
  expect(slots([lease("executor", { member, boot: 1 }), lease("ann")])).toEqual([
    ["ann", null, null],
    ["executor", "n1", 4],
  ]);
});
