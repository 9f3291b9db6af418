import { describe, expect, test } from "bun:test";
import {
  applyChanges,
  decodeConfigurationEntry,
  encodeConfiguration,
  leaveJoint,
  MEMBERS_MAX,
} from "../../src/raft/configuration.ts";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Configuration,
  type ConfigurationChange,
  type Entry,
  type EntryKind,
  type NodeId,
} from "../../src/raft/types.ts";

const record = (id: string): { url: string; incarnation: string } => ({
  url: `http://${id}`,
  incarnation: `i-${id}`,
});
const ids = (...names: string[]): NodeId[] => names.map(asNodeId);

function three(learners: readonly NodeId[] = []): Configuration {
  const voters = ids("n1", "n2", "n3");
  const members = Object.fromEntries([...voters, ...learners].map((id) => [id, record(id)]));
  return { voters, outgoing: [], learners, learnersNext: [], members };
}

function changed(before: Configuration, ...changes: ConfigurationChange[]): Configuration {
  const result = applyChanges(before, changes);
  if (!result.ok) throw new Error(result.detail);
  return result.configuration;
}

function entryOf(kind: EntryKind, text: string): Entry {
  return { term: asTerm(1), index: asIndex(7), kind, data: new TextEncoder().encode(text) };
}

describe("a configuration", () => {
  test("is the same after a trip through the log, alone and in a bootstrap entry", () => {
    const configuration = changed(
      three(ids("n4")),
      { op: "promote", id: asNodeId("n4") },
      { op: "demote", id: asNodeId("n1") },
    );
    const data = encodeConfiguration(configuration);
    const text = new TextDecoder().decode(data);
    expect(decodeConfigurationEntry(entryOf("config", text))).toEqual(configuration);
    expect(
      decodeConfigurationEntry(entryOf("bootstrap", `{"record":1,"configuration":${text}}`)),
    ).toEqual(configuration);
  });

  test("has the same bytes whatever order its ids came in", () => {
    const { members, ...rest } = three();
    const backwards = Object.fromEntries(Object.entries(members).reverse());
    const other = { ...rest, voters: [...rest.voters].reverse(), members: backwards };
    expect(encodeConfiguration(other)).toEqual(encodeConfiguration(three()));
  });

  test("that cannot be read names its entry and what is wrong", () => {
    const cases: [EntryKind, string, string][] = [
      ["command", "{}", "its kind is command"],
      ["config", "{", "JSON"],
      ["config", "[]", "no object"],
      ["config", '{"members":{}}', "voters is no list"],
      ["config", '{"members":{"n1":{"url":1}},"voters":[]}', "member n1"],
      [
        "config",
        '{"members":{},"voters":[1],"outgoing":[],"learners":[],"learnersNext":[]}',
        "no id",
      ],
      ["bootstrap", '{"voters":[]}', "no object"],
      ["noop", "", "its kind is noop"],
      ["bootstrap", "7", "no object"],
      ["config", "null", "no object"],
      ["config", '{"members":[]}', "members is no object"],
      ["config", '{"members":{"n1":7}}', "member n1 is no object"],
      ["config", '{"members":{"n1":{"url":"u"}}}', "lacks its url or incarnation"],
    ];
    for (const [kind, text, why] of cases) {
      expect(() => decodeConfigurationEntry(entryOf(kind, text))).toThrow("entry 7 (term 1)");
      expect(() => decodeConfigurationEntry(entryOf(kind, text))).toThrow(why);
    }
  });
});

describe("a change", () => {
  test("of learners or addresses needs no joint step", () => {
    const added = changed(three(), { op: "add-learner", id: asNodeId("n4"), record: record("n4") });
    expect(added.learners).toEqual(ids("n4"));
    expect(added.outgoing).toEqual([]);
    const moved = changed(added, { op: "update", id: asNodeId("n4"), record: record("elsewhere") });
    expect(moved.members["n4"]).toEqual(record("elsewhere"));
    const removed = changed(moved, { op: "remove", id: asNodeId("n4") });
    expect(removed).toEqual(three());
  });

  test("of a voter goes through a joint configuration, in which it is still asked and addressed", () => {
    const joint = changed(three(), { op: "remove", id: asNodeId("n3") });
    expect(joint.voters).toEqual(ids("n1", "n2"));
    expect(joint.outgoing).toEqual(ids("n1", "n2", "n3"));
    expect(joint.members["n3"]).toEqual(record("n3"));
    const left = leaveJoint(joint);
    expect(left.outgoing).toEqual([]);
    expect(left.members["n3"]).toBeUndefined();
  });

  test("that demotes makes a learner only when the joint configuration is left", () => {
    const joint = changed(three(), { op: "demote", id: asNodeId("n3") });
    expect(joint.learners).toEqual([]);
    expect(joint.learnersNext).toEqual(ids("n3"));
    const left = leaveJoint(joint);
    expect(left.learners).toEqual(ids("n3"));
    expect(left.members["n3"]).toEqual(record("n3"));
  });

  test("does not touch the configuration it is made from", () => {
    const before = three(ids("n4"));
    const bytes = encodeConfiguration(before);
    changed(before, { op: "promote", id: asNodeId("n4") }, { op: "remove", id: asNodeId("n1") });
    expect(encodeConfiguration(before)).toEqual(bytes);
  });

  test("beyond the limit of members is refused", () => {
    const changes = Array.from({ length: MEMBERS_MAX }, (_, i): ConfigurationChange => ({
      op: "add-learner",
      id: asNodeId(`x${i}`),
      record: record("x"),
    }));
    expect(applyChanges(three(), changes)).toEqual({
      ok: false,
      detail: `a cluster has ${MEMBERS_MAX} members at most`,
    });
  });

  test("that demotes who is no voter is refused", () => {
    const change = { op: "demote", id: asNodeId("n4") } as const;
    expect(applyChanges(three(ids("n4")), [change])).toEqual({
      ok: false,
      detail: "n4 is no voter",
    });
  });

  test("that removes whom a learner was to replace takes the wish away with it", () => {
    const wish = { ...record("n4"), replaces: asNodeId("n3") };
    const before = changed(three(), { op: "add-learner", id: asNodeId("n4"), record: wish });
    expect(before.members["n4"]).toEqual(wish);
    const kept = changed(before, { op: "remove", id: asNodeId("n2") });
    expect(kept.members["n4"]).toEqual(wish);
    const gone = changed(before, { op: "remove", id: asNodeId("n3") });
    expect(gone.members["n4"]).toEqual(record("n4"));
  });

  test("on top of a joint configuration is refused", () => {
    const joint = changed(three(), { op: "remove", id: asNodeId("n3") });
    expect(applyChanges(joint, [{ op: "remove", id: asNodeId("n2") }]).ok).toBe(false);
  });
});
