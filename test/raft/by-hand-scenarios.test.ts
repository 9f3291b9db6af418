/** What the paper and other implementations tell of Raft, played from outside: who leads, terms, votes, logs, commits. */
import { describe, expect, test } from "bun:test";
import * as raft from "../../src/raft/index.ts";
import { ByHand, command, hardState } from "./by-hand-cluster.ts";

const NOW = { disregardLeader: true } as const;
const between =
  (...pairs: readonly string[]) =>
  ({ from, to }: raft.Message): boolean =>
    pairs.includes(`${from}${to}`) || pairs.includes(`${to}${from}`);
const without =
  (id: string) =>
  ({ from, to }: raft.Message): boolean =>
    from === id || to === id;

describe("elections", () => {
  test("a leader of an earlier term wins again and overwrites what a later one wrote and nobody copied", () => {
    // 1 led term 2 and wrote to 2; 3 won term 3 by 4 and 5, wrote, and told nobody.
    const all = new ByHand("12345", {
      starts: {
        1: { entries: [command(2, 2)], hardState: hardState(2, "1") },
        2: { entries: [command(2, 2)], hardState: hardState(2, "1") },
        3: { entries: [command(2, 3)], hardState: hardState(3, "3") },
        4: { hardState: hardState(3, "3") },
        5: { hardState: hardState(3, "3") },
      },
    });
    // The first try only learns of term 3.
    all.campaign("1");
    expect(all.status("1")).toBe("follower 3 null | 1 2 | 1 1");
    all.campaign("1");
    all.tick("1");
    expect(all.statuses()).toEqual([
      "leader 4 1 | 1 2 4 | 3 3",
      "follower 4 1 | 1 2 4 | 3 3",
      "follower 4 null | 1 2 4 | 3 3",
      "follower 4 1 | 1 2 4 | 3 3",
      "follower 4 1 | 1 2 4 | 3 3",
    ]);
  });

  test("of two that cannot hear each other one wins, and the other disturbs nobody when it can", () => {
    const all = new ByHand("123");
    all.loses = between("13");
    all.campaign("1");
    all.campaign("3");
    expect(all.status("1")).toBe("leader 2 1 | 1 2 | 2 2");
    expect(all.core("3").role).toBe("follower");
    all.loses = () => false;
    all.campaign("3");
    expect(all.status("1")).toBe("leader 2 1 | 1 2 | 2 2");
    all.tick("1");
    expect(all.status("3")).toBe("follower 2 null | 1 2 | 2 2");
  });

  test("a member of an earlier term that was cut off votes, and follows, without raising anybody's term", () => {
    const all = new ByHand("123");
    all.loses = without("3");
    all.campaign("1");
    all.propose("1", "x");
    all.tick("1");
    all.tick("3", 40);
    expect(all.status("3")).toBe("pre-candidate 1 null | 1 | 1 1");
    all.loses = without("1");
    all.campaign("2", NOW);
    all.tick("2");
    expect(all.status("2")).toBe("leader 3 2 | 1 2 2 3 | 4 4");
    expect(all.status("3")).toBe("follower 3 2 | 1 2 2 3 | 4 4");
  });

  test("beside a living leader an election is refused, and one that disregards it is won by a log that is as long", () => {
    const all = new ByHand("123");
    all.campaign("1");
    all.campaign("2");
    expect(all.core("1").role).toBe("leader");
    all.loses = without("3");
    all.propose("1", "x");
    all.loses = () => false;
    // Its log is too short: nobody votes, and the leader steps down for the higher term.
    all.campaign("3", NOW);
    expect([...all.cores.values()].map(({ role, term }) => `${role} ${term}`)).toEqual([
      "follower 3",
      "follower 3",
      "follower 3",
    ]);
    all.campaign("2", NOW);
    expect(all.status("2")).toBe("leader 4 2 | 1 2 2 4 | 4 4");
  });
});

describe("commits", () => {
  test("what an earlier leader left is committed with the first entry of the new one, and no sooner", () => {
    const all = new ByHand("12345");
    all.campaign("1");
    all.loses = between("13", "14", "15");
    all.propose("1", "x");
    all.propose("1", "y");
    expect(all.status("1")).toBe("leader 2 1 | 1 2 2 2 | 2 2");
    // 2 leads, and its first entry of term 3 reaches nobody yet.
    all.loses = ({ type, from }) => type === "append" && from === "2";
    all.campaign("2", NOW);
    expect(all.status("2")).toBe("leader 3 2 | 1 2 2 2 3 | 2 2");
    all.loses = () => false;
    all.tick("2", 3);
    all.propose("2", "z");
    expect(all.status("2")).toBe("leader 3 2 | 1 2 2 2 3 3 | 6 6");
  });

  test("a message at a time: two of three copies commit, and the leader's own counts when its disk has it", () => {
    const all = new ByHand("123");
    all.campaign("1");
    all.tick("1");
    all.held.add("1");
    all.core("1").propose([{ kind: "command", data: new Uint8Array([7]) }]);
    const sent: string[] = [];
    all.loses = ({ from, to, type }) => {
      sent.push(`${from}${to} ${type}`);
      return to === "3";
    };
    all.settle();
    expect(sent).toEqual(["12 append", "13 append", "21 append-reply"]);
    // 2 has it, 1 not: no majority.
    expect(Number(all.core("1").commit)).toBe(2);
    all.persist("1");
    expect(Number(all.core("1").commit)).toBe(3);
    const progress = [...all.core("1").progress().values()];
    expect(progress.map(({ match, next }) => `${match} ${next}`)).toEqual(["3 4", "2 4"]);
  });
});

describe("membership and snapshots", () => {
  test("one change replaces the leader: it commits that, steps down, and the new member can be elected", () => {
    const all = new ByHand("123", { learners: "4" });
    all.campaign("1");
    all.propose("1", "x");
    all.tick("1");
    const changes = [
      { op: "promote", id: raft.asNodeId("4") },
      { op: "remove", id: raft.asNodeId("1") },
    ] as const;
    expect(all.core("1").proposeChange(changes).ok).toBe(true);
    all.settle();
    expect(all.core("1").role).toBe("follower");
    for (const id of "1234") {
      const { voters, outgoing } = all.core(id).configuration;
      expect([voters.join(""), outgoing.join("")]).toEqual(["234", ""]);
    }
    all.campaign("4", NOW);
    expect(all.core("4").role).toBe("leader");
    expect(all.status("1")).toBe("follower 2 1 | 1 2 2 2 2 | 5 5");
  });

  test("a cluster that begins behind a snapshot takes a new member in by one", () => {
    const all = new ByHand("");
    const configuration = raft.plainConfiguration(["1", "2", "3"].map(raft.asNodeId));
    const compacted = { index: raft.asIndex(10), term: raft.asTerm(1) };
    for (const id of "123")
      all.add(id, raft.recoveredState({ entries: [], compacted, configuration }));
    all.campaign("1");
    all.propose("1", "x");
    all.add("4", raft.recoveredState({ entries: [] }));
    const record = { url: "http://4", incarnation: "4" };
    all.core("1").proposeChange([{ op: "add-learner", id: raft.asNodeId("4"), record }]);
    all.settle();
    const four = raft.asNodeId("4");
    expect(all.core("1").progress().get(four)).toMatchObject({ state: "snapshot", mayLead: false });
    const [offer] = all.offers;
    expect(offer?.to).toBe("4");
    if (offer !== undefined) all.core("4").snapshotInstalled(offer.snapshot);
    all.settle();
    all.tick("1", 2);
    expect(all.core("1").progress().get(four)).toMatchObject({ state: "replicate", match: 13 });
    expect(all.status("4")).toBe("follower 2 null | - - - - - - - - - - - - 2 | 13 13");
  });
});
