/** When a cluster may be given up, and which of its survivors goes on. */
import { describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type Configuration } from "../../src/raft/types.ts";
import { aliveBecause, allFurthest, type Answering, furthest } from "../../src/rescue/judgement.ts";

const N1 = asNodeId("n1");

function membership(voters: readonly string[], outgoing: readonly string[] = []): Configuration {
  const ids = [...new Set([...voters, ...outgoing])];
  return {
    voters: voters.map(asNodeId),
    outgoing: outgoing.map(asNodeId),
    learners: [],
    learnersNext: [],
    members: Object.fromEntries(ids.map((id) => [id, { url: `http://${id}`, incarnation: id }])),
  };
}

const member = (id: string, live: Answering["live"]): Answering => ({
  id: asNodeId(id),
  url: `http://${id}`,
  live,
});
const dead = (id: string): Answering => member(id, null);
const alone = (id: string): Answering => member(id, { healthy: false });

describe("the survivor to go on with", () => {
  const at = (term: number, index: number) => ({ term: asTerm(term), index: asIndex(index) });

  test("is the one whose log ends in the latest term, and there the longest; of equal ones the first", () => {
    const logs = [at(2, 90), at(3, 10), at(3, 12), at(3, 12), at(1, 500)];
    expect(furthest(logs, (log) => log)).toBe(logs[2] ?? null);
    expect(allFurthest(logs, (log) => log)).toEqual([at(3, 12), at(3, 12)]);
  });

  test("is nobody of none", () => {
    expect(furthest([], () => at(1, 1))).toBeNull();
  });
});

describe("a cluster is not given up", () => {
  test("while a member is in touch with a leader, whoever answers there", () => {
    const others = [dead("n2"), member("n3", { healthy: true })];
    expect(aliveBecause(N1, membership(["n1", "n2", "n3"]), others)).toContain("n3 at http://n3");
  });

  test("while those that run are a majority with this one", () => {
    const why = aliveBecause(N1, membership(["n1", "n2", "n3"]), [alone("n2"), dead("n3")]);
    expect(why).toContain("n2 run, which is a majority");
  });

  test("when this member is the only voter", () => {
    expect(aliveBecause(N1, membership(["n1"]), [])).toContain("the only voter");
  });

  test("but is where too few of either half of a change are left", () => {
    expect(aliveBecause(N1, membership(["n1", "n2", "n3"]), [dead("n2"), dead("n3")])).toBeNull();
    const joint = membership(["n1", "n2"], ["n3", "n4", "n5"]);
    const others = [alone("n2"), alone("n3"), dead("n4"), dead("n5")];
    expect(aliveBecause(N1, joint, others)).toBeNull();
  });
});
