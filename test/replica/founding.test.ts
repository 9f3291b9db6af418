/** The first start of a cluster (docs/architecture.md): by whom, and what everybody waits for. */
import { expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type NodeId } from "../../src/raft/types.ts";
import { foundingStep } from "../../src/replica/founding.ts";
import type { Identity, PeerHello } from "../../src/replica/ports.ts";

const IDS = ["n1", "n2", "n3"].map(asNodeId);
const identityOf = (id: string, clusterId: string | null = null): Identity => ({
  id: asNodeId(id),
  incarnation: `folder of ${id}`,
  boot: 1,
  clusterId,
});

function hello(id: string, more: Partial<PeerHello> = {}): readonly [NodeId, PeerHello] {
  return [
    asNodeId(id),
    {
      ...identityOf(id),
      lastIndex: asIndex(0),
      lastTerm: asTerm(0),
      peerIds: IDS,
      advertise: `http://${id}`,
      machineVersion: 1,
      machineVersionOldest: 1,
      bootstrap: null,
      ...more,
    },
  ];
}

const step = (id: string, ...hellos: readonly (readonly [NodeId, PeerHello])[]) =>
  foundingStep(identityOf(id), IDS, new Map(hellos), null);

test("the first by its id founds, once every listed member has shown an empty folder and the same ids", () => {
  expect(step("n1", hello("n2"), hello("n3"))).toEqual({ do: "found" });
  expect(step("n2", hello("n1"), hello("n3"))).toMatchObject({
    reason: "waiting for n1 to found the cluster",
  });
});

test("nobody founds while one of them was not heard of", () => {
  expect(step("n1", hello("n3"))).toMatchObject({
    reason: "waiting for n2 before the first start of the cluster",
  });
});

test("nobody founds while one of them was given other ids: it might found with those", () => {
  const other = hello("n3", { peerIds: [asNodeId("n3"), asNodeId("n4"), asNodeId("n5")] });
  expect(step("n1", hello("n2"), other)).toMatchObject({
    do: "wait",
    reason:
      "n3 was started with --peers for n3, n4, n5, this member for n1, n2, n3: give all the same ids",
  });
});

test("nobody founds beside a folder that was used: its cluster comes first", () => {
  for (const used of [{ lastIndex: asIndex(7) }, { clusterId: "c" }]) {
    expect(step("n1", hello("n2"), hello("n3", used))).toMatchObject({
      reason: "n3 has a log already: waiting for its word",
    });
  }
});

test("a member that held entry 1 of a cluster founds no other one, and adopts no other's", () => {
  const foreign = hello("n2", { bootstrap: JSON.stringify({ clusterId: "other", members: [] }) });
  const all = new Map([foreign, hello("n3")]);
  expect(foundingStep(identityOf("n1", "c"), IDS, all, null)).toMatchObject({ do: "wait" });
  expect(foundingStep(identityOf("n1"), IDS, all, null)).toMatchObject({ do: "adopt" });
});
