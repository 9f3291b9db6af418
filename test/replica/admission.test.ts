import { expect, test } from "bun:test";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Configuration,
  type NodeId,
} from "../../src/raft/types.ts";
import { Admission } from "../../src/replica/admission.ts";
import { CallError } from "../../src/replica/consensus.ts";
import { Sightings } from "../../src/replica/sightings.ts";
import { NodeClock, World } from "../sim/world.ts";

const N1 = asNodeId("n1");
const N4 = asNodeId("n4");
const said: string[] = [];
const log = { debug() {}, info: (line: string) => void said.push(line), warn() {}, error() {} };

/** `held`: of the log as it is, as of each index. */
function admissionOf(
  incarnation: string,
  held: Map<number, Configuration> = new Map(),
  now: Configuration | null = null,
  commit = 1,
  overrides: ReadonlyMap<NodeId, string> = new Map(),
  add: () => Promise<unknown> = async () => null,
): Admission {
  const clock = new NodeClock(new World(1));
  return new Admission(
    {
      identity: { id: N4, incarnation, clusterId: "c", boot: 1 },
      advertise: "http://n4",
      overrides,
      clock,
      log,
      sightings: new Sightings(),
      clusterId: () => "c",
      membership: () =>
        now === null ? null : { configuration: now, index: asIndex(1), commit: asIndex(commit) },
      configurationAt: (index) => held.get(index) ?? null,
      retired: () => undefined,
      add,
      redial: () => undefined,
      dismiss: () => undefined,
    },
    null,
  );
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

const hello = {
  id: N1,
  incarnation: "one",
  boot: 7,
  lastIndex: asIndex(1_000_000_009),
  lastTerm: asTerm(9),
  peerIds: [],
  advertise: "http://n1",
  machineVersion: 1,
  machineVersionOldest: 1,
  bootstrap: null,
};

test("a member is dialled where --peers, the log, and its own word have it; that they differ is said once", () => {
  const both = configuration("four");
  const flag = new Map([[N1, "http://flag"]]);
  const admission = admissionOf("four", new Map(), both, 1, flag);
  const places = (): readonly string[] => admission.addresses(both, asIndex(1), null).get(N1) ?? [];
  said.length = 0;
  expect(places()).toEqual(["http://flag", "http://n1"]);
  admission.admit({ ...hello, clusterId: "c", advertise: "http://moved" });
  expect(places()).toEqual(["http://flag", "http://n1", "http://moved"]);
  expect(said).toEqual([
    "--peers has n1 at http://flag, the membership at http://n1: both are dialled by turns",
  ]);
});

test("a member's word of its address holds until the connection to that very process ends", () => {
  const admission = admissionOf("four", new Map(), configuration("four"));
  expect(admission.advertised(N1)).toBeNull();
  expect(admission.advertised(N4)).toBe("http://n4");
  admission.welcomed({ ...hello, clusterId: "c" });
  // It was started anew elsewhere, and said so, before the connection to what it was is found to be over.
  admission.admit({ ...hello, clusterId: "c", boot: 8, advertise: "http://moved" });
  admission.lost(N1, 7);
  expect(admission.advertised(N1)).toBe("http://moved");
  admission.lost(N1, 8);
  expect(admission.advertised(N1)).toBeNull();
  expect(admission.addresses(configuration("four"), asIndex(1), null).get(N1)).toContain(
    "http://moved",
  );
});

test("a guest that leads is dialled even where the log has come further than the guest had shown", () => {
  const n5 = asNodeId("n5");
  const own = configuration("four");
  const admission = admissionOf("four", new Map(), own);
  const guest = { ...hello, id: n5, incarnation: "five", clusterId: "c", advertise: "http://n5" };
  expect(admission.admit({ ...guest, configIndex: asIndex(3) })).toBeNull();
  const isDialled = (index: number, leader: NodeId | null): boolean =>
    admission.addresses(own, asIndex(index), leader).has(n5);
  expect(isDialled(2, null)).toBe(true);
  // What it showed was a change before the one that let it in.
  expect(isDialled(3, N1)).toBe(false);
  expect(isDialled(3, n5)).toBe(true);
  expect(isDialled(3, null)).toBe(false);
});

test("a member's own folder that went to another cluster, as a rescue makes of it, is let in by nobody", () => {
  const admission = admissionOf("four", new Map(), configuration("four"));
  expect(admission.admit({ ...hello, clusterId: "c" })).toBeNull();
  expect(admission.admit({ ...hello, clusterId: "rescued" })?.sentence).toBe(
    "n4 belongs to cluster c, n1 to rescued",
  );
});

test("a member is told that it was removed only by who knows that for certain", () => {
  const n5 = asNodeId("n5");
  const hello = {
    id: n5,
    incarnation: "five",
    boot: 2,
    clusterId: "c",
    lastIndex: asIndex(9),
    lastTerm: asTerm(1),
    peerIds: [],
    advertise: "http://n5",
    machineVersion: 1,
    machineVersionOldest: 1,
    bootstrap: null,
  };
  const said = (folder: string | null, commit: number) => {
    const now = configuration("four");
    const five = folder === null ? {} : { [n5]: { url: "http://n5", incarnation: folder } };
    const grown = { ...now, members: { ...now.members, ...five } };
    return admissionOf("four", new Map(), grown, commit).admit(hello)?.code;
  };
  // The change without it stands at 1.
  expect([said(null, 0), said(null, 1)]).toEqual(["refused", "removed"]);
  expect([said("other", 0), said("other", 1)]).toEqual(["refused", "removed"]);
  expect([said("", 0), said("", 1)]).toEqual(["no-join", "removed"]);
});

test("a member believes that it was removed if it was one for certain, and by its own judgement of others never", () => {
  const removed = { sentence: "n4 is not a member of cluster c", code: "removed" } as const;
  const admission = admissionOf("four", new Map(), configuration("four"), 6);
  admission.follow(configuration("four"), asIndex(7), []);
  const hello = (index: number) => ({ what: "hello", configIndex: asIndex(index) }) as const;
  admission.refusedBy(N1, removed, hello(7));
  expect(admission.retired).toBeNull();
  expect(admission.whyAlone(0)).toContain("refused by n1: n4 is not a member");
  admission.follow(configuration("four"), asIndex(7), []);

  const member = admissionOf("four", new Map(), configuration("four"), 7);
  member.follow(configuration("four"), asIndex(7), []);
  // n9 was removed, and dials on: that is not why this member finds no leader.
  const n9 = asNodeId("n9");
  member.refusedBy(
    n9,
    { sentence: "n9 is not a member of cluster c", code: "removed" },
    { what: "peer" },
  );
  expect([member.retired, member.whyAlone(0)]).toEqual([null, null]);
  member.refusedBy(N1, { sentence: "n1 has an older copy", code: "refused" }, { what: "peer" });
  expect(member.whyAlone(0)).toBe("n1 is refused: n1 has an older copy");
  // Its hello was older than what let it in, or a connection of an earlier folder was meant (seed 911262).
  member.refusedBy(N1, removed, hello(6));
  member.refusedBy(N1, removed, { what: "connection", configIndex: asIndex(7) });
  expect(member.retired).toBeNull();
  member.refusedBy(N1, removed, hello(7));
  expect(member.retired).toContain("n4 was removed from cluster c, as n1 says");
});

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

test("one leader's change is cut off the log and another's written behind it in one go: the folder was not removed", () => {
  const held = new Map([[7, configuration("four")]]);
  const admission = admissionOf("four", held);
  admission.follow(configuration("four"), asIndex(7), []);
  // Entry 7 is another one now, and a change of other members stands at 9.
  held.set(7, configuration(null));
  admission.follow(configuration(null), asIndex(9), []);
  admission.settled(configuration(null), asIndex(9));
  expect(admission.retired).toBeNull();
});

test("a log that a snapshot replaced says nothing of what it would have let in (seed 2397115327)", () => {
  const admission = admissionOf("four");
  admission.follow(configuration("four"), asIndex(7), []);
  // The next leader never had entry 7; it lets the folder in behind the snapshot, at 26.
  admission.logReplaced(configuration(null), asIndex(25));
  admission.follow(configuration(null), asIndex(25), []);
  admission.settled(configuration(null), asIndex(25));
  expect(admission.retired).toBeNull();
  admission.follow(configuration("four"), asIndex(26), []);
  expect(admission.memberSince).toBe(asIndex(26));
});

test("a snapshot that changes nothing of the membership leaves its member what it was: it answers for what follows", () => {
  const admission = admissionOf("four");
  admission.follow(configuration("four"), asIndex(7), []);
  // No change of the configuration will be told of: it is the same.
  admission.logReplaced(configuration("four"), asIndex(25));
  expect(admission.memberSince).toBe(asIndex(25));
});

/** An empty folder of this incarnation that was told to join. */
function knock(incarnation: string) {
  const id = asNodeId("n7");
  return { ...hello, id, incarnation, clusterId: null, lastIndex: asIndex(0), join: true };
}

test("folders that were refused and never came back to hear it leave room for others", async () => {
  let asked = 0;
  const refuse = async (): Promise<never> => {
    asked += 1;
    throw new CallError("address-taken", "every member needs its own address");
  };
  const admission = admissionOf("four", new Map(), configuration("four"), 1, new Map(), refuse);
  for (let i = 0; i < 64; i++) {
    expect(admission.admit(knock(`gone ${i}`))?.code).toBe("joining");
    await Promise.resolve();
  }
  await Bun.sleep(0);
  expect(admission.admit(knock("new"))?.code).toBe("joining");
  expect(asked).toBe(65);
  await Bun.sleep(0);
  expect(admission.admit(knock("new"))).toEqual({
    sentence: "every member needs its own address",
    code: "no-join",
  });
});

test("a member that was removed sends who wants to join to another one", () => {
  const admission = admissionOf("four", new Map(), configuration("four"));
  admission.retire(asIndex(3));
  expect(admission.admit(knock("new"))).toMatchObject({ code: "no-join" });
  expect(admission.admit(knock("new"))?.sentence).toContain("n4 is no member any more: --join");
});
