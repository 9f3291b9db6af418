import { describe, expect, test } from "bun:test";
import { EMPTY_CONFIGURATION } from "../../src/raft/configuration.ts";
import { asIndex, asNodeId, asTerm, type MemberRecord, type NodeId } from "../../src/raft/types.ts";
import type { PeerHello } from "../../src/replica/ports.ts";
import { planPromotion } from "../../src/replica/promotion.ts";
import { Sightings } from "../../src/replica/sightings.ts";

const ids = (text: string): NodeId[] => text.split(" ").filter(Boolean).map(asNodeId);

function plan(
  voters: string,
  learners: string,
  {
    slow = "",
    dead = "",
    wrong = "",
    wishes = {},
  }: {
    slow?: string;
    dead?: string;
    wrong?: string;
    wishes?: Record<string, Partial<MemberRecord>>;
  } = {},
): string {
  const members: Record<string, MemberRecord> = {};
  for (const id of ids(`${voters} ${learners}`))
    members[id] = { url: `http://${id}`, incarnation: id, ...wishes[id] };
  const { changes, waiting } = planPromotion({
    configuration: {
      ...EMPTY_CONFIGURATION,
      voters: ids(voters),
      learners: ids(learners),
      members,
    },
    notReady: (id) => (ids(`${slow} ${dead}`).includes(id) ? "is behind" : null),
    reachable: (id) => !ids(dead).includes(id),
    wrong: (id) => ids(wrong).includes(id),
  });
  const said = changes.map(({ op, id }) => `${op} ${id}`).join(", ");
  return waiting.size === 0 ? said : `${said} | ${[...waiting.keys()].join(" ")}`;
}

describe("learners become voters by themselves", () => {
  test("as many as keep the number of voters odd", () => {
    expect(plan("a", "b")).toBe(" | b");
    expect(plan("a", "b c")).toBe("promote b, promote c");
    expect(plan("a b", "c")).toBe("promote c");
    expect(plan("a b c", "d")).toBe(" | d");
    expect(plan("a b c", "d e f")).toBe("promote d, promote e | f");
    expect(plan("a b", "c d")).toBe("promote c | d");
    expect(plan("a b c d", "e f g")).toBe("promote e, promote f, promote g");
  });

  test("a link of a chain at a time: no change names a member twice, and no wish is lost", () => {
    const chain = { d: { replaces: asNodeId("e") }, e: { voter: true as const } };
    expect(plan("a b c", "d e", { wishes: chain })).toBe("promote e | d");
    const two = { d: { replaces: asNodeId("c") }, e: { replaces: asNodeId("d") } };
    expect(plan("a b c", "d e", { wishes: two })).toBe("promote d, remove c | e");
    const three = { d: { replaces: asNodeId("e") }, e: { replaces: asNodeId("c") } };
    expect(plan("a b c", "d e", { wishes: three })).toBe("promote e, remove c | d");
    const gone = { d: { replaces: asNodeId("e") }, e: { replaces: asNodeId("x") } };
    expect(plan("a b c", "d e", { wishes: gone })).toBe("promote d, remove e");
    const ring = { d: { replaces: asNodeId("e") }, e: { replaces: asNodeId("d") } };
    expect(plan("a b c", "d e", { wishes: ring })).toBe("promote d, remove e");
  });

  test("only once they have caught up", () => {
    expect(plan("a", "b c", { slow: "c" })).toBe(" | c b");
    expect(plan("a b c", "d e f", { slow: "d" })).toBe("promote e, promote f | d");
  });

  test("also to an even number when their record says so", () => {
    expect(plan("a", "b", { wishes: { b: { voter: true } } })).toBe("promote b");
    expect(plan("a b c", "d e", { wishes: { d: { voter: true } } })).toBe("promote d, promote e");
  });

  test("not in the place of the last member whose state is right, beside others that are wrong", () => {
    const wishes = { c: { replaces: asNodeId("a") } };
    expect(plan("a b", "c", { wishes, wrong: "b" })).toBe("promote c, remove a");
    expect(plan("a b", "c", { wishes, wrong: "b c" })).toBe(" | c");
    expect(plan("a", "c", { wishes, wrong: "c" })).toBe(" | c");
  });

  test("in the place of another member, in one change", () => {
    const wishes = { d: { replaces: asNodeId("c") } };
    expect(plan("a b c", "d", { wishes, dead: "c" })).toBe("promote d, remove c");
    expect(plan("a b c", "d", { wishes, dead: "c", slow: "d" })).toBe(" | d");
    // The other one is gone already: an ordinary learner.
    expect(plan("a b", "d", { wishes })).toBe("promote d");
    const both = { d: { replaces: asNodeId("c") }, e: { replaces: asNodeId("c") } };
    expect(plan("a b c", "d e", { wishes: both })).toBe("promote d, remove c, promote e");
  });

  test("and whoever waits to take a place says whose", () => {
    const wishes = { d: { replaces: asNodeId("c") } };
    const { waiting } = planPromotion({
      configuration: {
        ...EMPTY_CONFIGURATION,
        voters: ids("a b c"),
        learners: ids("d"),
        members: Object.fromEntries(
          ids("a b c d").map((id) => [
            id,
            { url: `http://${id}`, incarnation: id, ...(id === "d" ? wishes.d : {}) },
          ]),
        ),
      },
      notReady: () => "is behind",
      reachable: () => true,
      wrong: () => false,
    });
    expect(waiting.get(asNodeId("d"))).toBe(
      "is behind; once a voter it takes the place of c, which is removed",
    );
  });

  test("not while the voters that there would be could not decide", () => {
    expect(plan("a b c", "d e", { dead: "b" })).toBe("promote d, promote e");
    expect(plan("a b c", "d", { dead: "b c", wishes: { d: { voter: true } } })).toBe(" | d");
  });
});

describe("what was seen of a folder", () => {
  const hello = (boot: number, index: number, term?: number): PeerHello => ({
    id: asNodeId("a"),
    incarnation: "folder",
    boot,
    clusterId: "c",
    lastIndex: asIndex(index),
    lastTerm: asTerm(1),
    peerIds: [],
    advertise: "http://a",
    machineVersion: 1,
    machineVersionOldest: 1,
    bootstrap: null,
    ...(term === undefined ? {} : { term: asTerm(term) }),
  });

  test("is never less later: starts, log, term", () => {
    const sightings = new Sightings();
    const seen = { incarnation: "folder", boot: 3, index: asIndex(70), term: asTerm(5) };
    sightings.saw(asNodeId("a"), seen);
    sightings.saw(asNodeId("a"), { ...seen, boot: 2, index: asIndex(60) });
    expect(sightings.refusal(hello(3, 70, 5))).toBeNull();
    expect(sightings.refusal(hello(4, 71))).toBeNull();
    expect(sightings.refusal(hello(2, 70, 5))).toContain("start 2");
    expect(sightings.refusal(hello(4, 69, 5))).toContain("ends at 69");
    expect(sightings.refusal(hello(4, 70, 4))).toContain("term 4");
    // Another folder is another matter.
    expect(sightings.refusal({ ...hello(1, 0), incarnation: "new" })).toBeNull();
  });

  test("is told to others, and nonsense is not believed", () => {
    const one = new Sightings();
    const seen = { incarnation: "folder", boot: 3, index: asIndex(70), term: asTerm(5) };
    one.saw(asNodeId("a"), seen);
    const other = new Sightings();
    other.heard(JSON.parse(JSON.stringify(one.toList())));
    expect(other.refusal(hello(3, 69, 5))).not.toBeNull();
    for (const bad of [null, 7, [["a"]], [["a", "folder", -1, 2, 3]], [["a", "folder", 1.5, 2, 3]]])
      new Sightings().heard(bad);
  });
});
