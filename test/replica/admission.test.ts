import { expect, test } from "bun:test";
import { asIndex, asNodeId, type Configuration } from "../../src/raft/types.ts";
import { Admission } from "../../src/replica/admission.ts";
import { Sightings } from "../../src/replica/sightings.ts";
import { NodeClock, World } from "../sim/world.ts";

const N1 = asNodeId("n1");
const N4 = asNodeId("n4");
const log = { debug() {}, info() {}, warn() {}, error() {} };

function admissionOf(incarnation: string): Admission {
  const clock = new NodeClock(new World(1));
  return new Admission({
    identity: { id: N4, incarnation, clusterId: "c", boot: 1 },
    overrides: new Map(),
    clock,
    log,
    sightings: new Sightings(),
    clusterId: () => "c",
    membership: () => null,
    add: async () => null,
    redial: () => undefined,
    dismiss: () => undefined,
  });
}

/** n1 votes, n4 learns; `folder`: of n4, "" while it is awaited. */
function configuration(folder: string | null): Configuration {
  const members: Record<string, { url: string; incarnation: string }> = {
    [N1]: { url: "http://n1", incarnation: "one" },
  };
  if (folder !== null) members[N4] = { url: "http://n4", incarnation: folder };
  return {
    voters: [N1],
    outgoing: [],
    learners: folder === null ? [] : [N4],
    learnersNext: [],
    members,
  };
}

test("a folder whose joining is cut off the log again is awaited, and was not removed", () => {
  const admission = admissionOf("four");
  admission.follow(configuration(""), asIndex(5), []);
  admission.follow(configuration("four"), asIndex(7), []);
  // The entry at 7 was replaced by another leader's: the configuration at 5 is the newest, and committed.
  admission.follow(configuration(""), asIndex(5), []);
  admission.settled(configuration(""), asIndex(5));
  expect(admission.retired).toBeNull();
  admission.follow(configuration("four"), asIndex(9), []);
  expect(admission.memberSince).toBe(asIndex(9));
});

test("a folder that was a member, and is none by what is committed, was removed", () => {
  const admission = admissionOf("four");
  admission.follow(configuration("four"), asIndex(7), []);
  admission.follow(configuration(null), asIndex(9), []);
  admission.settled(configuration(null), asIndex(9));
  expect(admission.retired).toContain("n4 was removed from cluster c at log index 9");
});
