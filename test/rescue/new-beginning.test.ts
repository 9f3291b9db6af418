import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { TaskMachine } from "../../src/queue/machine.ts";
import { asNodeId, INDEX_0, TERM_0 } from "../../src/raft/types.ts";
import { decodeBootstrap } from "../../src/replica/envelope.ts";
import { newBeginning } from "../../src/rescue/new-beginning.ts";

test("the origin in entry 1 has the order in which members that hear of it write it: one entry, the same bytes", () => {
  const machine = TaskMachine.open(new Database(":memory:"));
  const identity = { id: asNodeId("n1"), incarnation: "a" };
  const { foundations } = newBeginning(
    machine,
    { identity, term: TERM_0, lastIndex: INDEX_0, read: () => [] },
    {
      clusterId: "new",
      advertise: "http://n1",
      now: 1,
      origin: { note: "why", clusterId: "old", kind: "restore" },
    },
  );
  const { origin } = decodeBootstrap(foundations[0]).record;
  expect(Object.keys(origin ?? {})).toEqual(["kind", "clusterId", "index", "term", "note"]);
});
