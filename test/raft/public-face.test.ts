/**
 * What the driver never asks of a core, and an honest cluster never sends it, but whoever plays cores by hand may: each
 * is answered, refused or passed over, and nothing breaks. The simulator cannot reach it; its table of branches names
 * this file.
 */
import { describe, expect, test } from "bun:test";
import { ConfigurationHistory } from "../../src/raft/configuration-history.ts";
import * as raft from "../../src/raft/index.ts";

const [n1, n2, n3, n9] = ["n1", "n2", "n3", "n9"].map(raft.asNodeId) as [
  raft.NodeId,
  raft.NodeId,
  raft.NodeId,
  raft.NodeId,
];
const index = raft.asIndex;
const term = raft.asTerm;
const WRITES_MAX = 8;

const OPTIONS: raft.RaftOptions = {
  ...raft.DEFAULT_LIMITS,
  id: n1,
  heartbeatTicks: 2,
  electionTicks: 10,
  stallTicks: 20,
  drawElectionTicks: () => 15,
  maxWritesUnderWay: WRITES_MAX,
};

type Bodies<M> = M extends raft.Message ? Omit<M, "from" | "to" | "term"> : never;
type Body = Bodies<raft.Message>;

function core(given: Partial<raft.GivenLog> = {}, options: Partial<raft.RaftOptions> = {}) {
  const entries = [raft.foundingEntry([n1, n2, n3])];
  return new raft.Raft({ ...OPTIONS, ...options }, raft.recoveredState({ entries, ...given }));
}

function step(to: raft.Raft, from: raft.NodeId, inTerm: number, body: Body): void {
  to.step({ from, to: to.id, term: term(inTerm), ...body });
}

function settle(of: raft.Raft): raft.Message[] {
  const sent: raft.Message[] = [];
  for (let todo = of.takeEffects(); todo !== null; todo = of.takeEffects()) {
    sent.push(...todo.messages, ...todo.afterPersist);
    if (todo.persist !== null) of.persisted(raft.ackOf(todo.persist));
  }
  return sent;
}

const granted = (pre: boolean): Body => ({ type: "vote-reply", pre, granted: true });
const acknowledged = (match: number): Body => ({
  type: "append-reply",
  prevIndex: index(match),
  match: index(match),
  hint: null,
});
const heartbeat: Body = { type: "heartbeat", commit: index(0), round: 1 };

function leader(options: Partial<raft.RaftOptions> = {}): raft.Raft {
  const of = core({}, options);
  of.campaign();
  step(of, n2, 2, granted(true));
  step(of, n2, 2, granted(false));
  settle(of);
  expect(of.role).toBe("leader");
  return of;
}

function follower(given: Partial<raft.GivenLog> = {}): raft.Raft {
  const of = core(given);
  step(of, n2, 2, heartbeat);
  settle(of);
  return of;
}

/** Its disk has as many writes to do as may be. */
function busy(of: raft.Raft): void {
  for (let at = 0; at < WRITES_MAX; at++) {
    const last = of.lastIndex;
    const data = new Uint8Array(1);
    const entry = { term: term(2), index: index(last + 1), kind: "command", data } as const;
    const prevTerm = of.lastTerm;
    step(of, n2, 2, {
      type: "append",
      prevIndex: last,
      prevTerm,
      entries: [entry],
      commit: index(0),
    });
    of.takeEffects();
  }
}

describe("a later term", () => {
  const configuration = raft.plainConfiguration([n1, n2, n3]);
  const bearers: readonly Body[] = [
    { type: "append", prevIndex: index(9), prevTerm: term(4), entries: [], commit: index(0) },
    { type: "commit", prevIndex: index(9), prevTerm: term(4), commit: index(9) },
    acknowledged(1),
    heartbeat,
    { type: "heartbeat-reply", round: 1 },
    { type: "read-index", id: 7 },
    { type: "read-index-reply", id: 7, index: null },
    { type: "timeout-now" },
    { type: "snapshot", snapshot: { index: index(9), term: term(4), configuration } },
    { type: "snapshot-reply", index: index(1), ok: true },
    { type: "vote-reply", pre: true, granted: false },
  ];
  for (const body of bearers)
    test(`is believed by whatever message it comes: ${body.type}`, () => {
      const of = leader();
      step(of, n2, 5, body);
      expect([of.term, of.role, of.vote]).toEqual([term(5), "follower", null]);
    });

  test("is not heard while the disk has too much to write already, nor is what needs a write of it", () => {
    const of = follower();
    busy(of);
    const last = of.lastIndex;
    const vote = {
      pre: false,
      lastIndex: index(99),
      lastTerm: term(2),
      leaderLost: false,
    } as const;
    step(of, n3, 5, { type: "vote", ...vote, transfer: true });
    step(of, n2, 2, { type: "timeout-now" });
    const data = new Uint8Array(1);
    step(of, n2, 2, {
      type: "append",
      prevIndex: last,
      prevTerm: term(2),
      entries: [{ term: term(2), index: index(last + 1), kind: "command", data }],
      commit: index(0),
    });
    expect([of.term, of.role, of.lastIndex]).toEqual([term(2), "follower", last]);
    const busyWithoutLeader = core();
    step(busyWithoutLeader, n2, 2, { type: "vote-reply", pre: true, granted: false });
    for (let at = 0; at < WRITES_MAX; at++) {
      step(busyWithoutLeader, n2, 2 + at, { type: "vote-reply", pre: true, granted: false });
      busyWithoutLeader.takeEffects();
    }
    step(busyWithoutLeader, n3, busyWithoutLeader.term, { type: "vote", ...vote, transfer: false });
    expect(busyWithoutLeader.vote).toBeNull();
  });
});

describe("an earlier term", () => {
  test("is answered where its sender led in it, by an offer of a snapshot too", () => {
    const of = follower();
    const configuration = raft.plainConfiguration([n1, n2, n3]);
    const snapshot = { index: index(9), term: term(1), configuration };
    step(of, n3, 1, { type: "snapshot", snapshot });
    expect(settle(of)).toMatchObject([{ type: "append-reply", to: n3, term: 2, match: null }]);
    step(of, n3, 1, { type: "snapshot-reply", index: index(1), ok: true });
    expect(settle(of)).toEqual([]);
  });

  test("answered so late that who led in it leads again says nothing", () => {
    const of = leader();
    step(of, n2, 2, { type: "append-reply", prevIndex: index(1), match: null, hint: null });
    expect(of.progress().get(n2)).toMatchObject({ match: index(0), state: "probe" });
  });
});

describe("a lost log", () => {
  test("of which is not said where it ends is no answer", () => {
    const of = leader();
    const nothing = { prevIndex: index(0), match: null, hint: null } as const;
    step(of, n2, 2, { type: "append-reply", ...nothing, lost: true });
    expect(of.progress().get(n2)).toMatchObject({ match: index(0), state: "probe" });
  });
});

describe("a message for somebody else", () => {
  test("and one from itself are passed over", () => {
    const of = core();
    of.step({ from: n2, to: n3, term: term(9), ...heartbeat });
    of.step({ from: n1, to: n1, term: term(9), ...heartbeat });
    expect(of.term).toBe(term(1));
  });
});

describe("the word to campaign at once", () => {
  const told = (of: raft.Raft, from = n2): raft.Role => {
    step(of, from, of.term, { type: "timeout-now" });
    return of.role;
  };

  test("makes a candidate of a follower of that leader", () => {
    expect(told(follower())).toBe("candidate");
  });

  test("of another one than the leader is not followed, nor by one that campaigns already", () => {
    expect(told(follower(), n3)).toBe("follower");
    const of = follower();
    for (let tick = 0; tick < 20; tick++) of.tick();
    expect(of.role).toBe("pre-candidate");
    expect(told(of)).toBe("pre-candidate");
  });

  test("is not followed by a learner, in repair, and with a disk that stalls", () => {
    const entries = [raft.foundingEntry([n2, n3], [n1])];
    expect(told(follower({ entries }))).toBe("follower");
    expect(told(follower({ promised: { index: index(5), term: term(1) } }))).toBe("follower");
    const stalls = core();
    step(stalls, n2, 2, heartbeat);
    stalls.takeEffects();
    for (let tick = 0; tick < 10; tick++) stalls.tick();
    step(stalls, n2, 2, heartbeat);
    expect(told(stalls)).toBe("follower");
  });
});

describe("votes", () => {
  test("of one that is no voter do not count", () => {
    const of = core();
    of.campaign();
    step(of, n9, 2, granted(true));
    expect([of.role, of.votes.has(n9)]).toEqual(["pre-candidate", false]);
  });
});

describe("a leader", () => {
  test("takes no empty proposal, and a configuration only as a change", () => {
    const of = leader();
    const data = new Uint8Array(0);
    for (const items of [[], [{ kind: "config", data }], [{ kind: "bootstrap", data }]] as const)
      expect(of.propose(items)).toMatchObject({ ok: false, reason: "invalid" });
  });

  test("knows nothing of who is no member: not how far its log is, nor of its snapshot", () => {
    const of = leader();
    expect(of.behind(n9)).toContain("not caught up");
    step(of, n9, 2, { type: "snapshot-reply", index: index(1), ok: true });
    of.snapshotSent(n9, index(1), false);
    of.snapshotSent(n2, index(1), false); // none was offered
    of.snapshotSent(n2, index(1), true);
    of.disconnected(n9);
    expect(of.progress().get(n2)?.state).toBe("probe");
    of.awaitsCommit(null, index(2));
  });

  test("offers a snapshot again when its receiver says that it could not install it", () => {
    const of = leader();
    step(of, n3, 2, acknowledged(2));
    settle(of);
    of.applied(of.applicable);
    of.compacted(of.appliedIndex);
    // The second one's log ends before what is left here.
    const refused = { prevIndex: index(1), hint: { index: index(0), term: term(0) } };
    step(of, n2, 2, { type: "append-reply", match: null, ...refused });
    step(of, n2, 2, { type: "heartbeat-reply", round: 1 });
    expect(settle(of).map(({ type }) => type)).toContain("snapshot");
    step(of, n2, 2, { type: "snapshot-reply", index: index(2), ok: false });
    expect(of.progress().get(n2)?.state).toBe("probe");
    step(of, n2, 2, { type: "heartbeat-reply", round: 1 });
    expect(settle(of).map(({ type }) => type)).toContain("snapshot");
    of.snapshotNotNeeded({ index: index(1), term: term(1) }); // a leader needs none, and says so to nobody
    expect(settle(of)).toEqual([]);
  });
});

describe("a member that does not lead", () => {
  test("has no room for proposals, no view of the others, and no leadership to hand over", () => {
    const of = core();
    expect(of.hasRoomFor(1)).toBe(false);
    expect(of.behind(n2)).toBe("this member does not lead");
    expect(of.transferTarget).toBeNull();
    expect(of.progress().size).toBe(0);
    expect(of.transfer(n2)).toBe(false);
    of.awaitsCommit(n2, index(1));
    of.snapshotSent(n2, index(1), false);
    of.fetched(n2, []);
    of.snapshotNotNeeded({ index: index(1), term: term(1) }); // nobody leads who could be told
    expect(settle(of)).toEqual([]);
  });

  test("goes to the term of a snapshot that it was given, whoever brought it", () => {
    const of = core();
    const configuration = raft.plainConfiguration([n1, n2, n3]);
    of.snapshotInstalled({ index: index(9), term: term(4), configuration });
    expect([of.term, of.role, of.commit]).toEqual([term(4), "follower", index(9)]);
    expect(of.entriesFromCache(index(10), index(12))).toBeNull();
  });

  test("knows as committed what a snapshot holds that its own log holds as well, and says so", () => {
    const of = follower();
    busy(of);
    settle(of);
    const replies = (): number[] =>
      settle(of).flatMap((sent) => (sent.type === "snapshot-reply" ? [sent.index] : []));
    const before = of.commit;
    of.snapshotNotNeeded({ index: index(4), term: term(1) }); // another entry than its own
    of.snapshotNotNeeded({ index: index(99), term: term(2) });
    expect(replies()).toEqual([before, before]);
    of.snapshotNotNeeded({ index: index(4), term: term(2) });
    expect(replies()).toEqual([4]);
    expect(of.commit).toBe(index(4));
  });

  test("is not told of a write by an answer with another vote in it", () => {
    const of = core();
    step(of, n2, 5, { type: "vote-reply", pre: true, granted: false });
    const persist = of.takeEffects()?.persist;
    of.persisted({ hardState: { term: term(6), vote: null }, last: null });
    expect(of.durableTerm).toBe(term(1));
    of.persisted({ hardState: persist?.hardState ?? null, last: null });
    expect(of.durableTerm).toBe(term(5));
  });
});

describe("a log that is given", () => {
  test("may be compacted, applied, in repair, and mostly out of the cache", () => {
    const configuration = raft.plainConfiguration([n1, n2, n3]);
    const data = raft.encodeConfiguration(configuration);
    const entries: raft.Entry[] = [
      { term: term(2), index: index(6), kind: "command", data: new Uint8Array(1) },
      { term: term(2), index: index(7), kind: "config", data },
    ];
    const compacted = { index: index(5), term: term(1) };
    const promised = { index: index(9), term: term(2) };
    const given = { entries, compacted, configuration, promised, applied: index(6), cached: 1 };
    const of = core(given);
    expect([of.term, of.lastIndex, of.appliedIndex]).toEqual([term(2), index(7), index(6)]);
    expect([of.compactedIndex, of.configurationIndex, of.repairingTo]).toEqual(
      [5, 7, 9].map(index),
    );
    expect(of.entriesFromCache(index(6), index(6))).toBeNull();
    expect(of.entriesFromCache(index(7), index(7))).toHaveLength(1);
  });
});

describe("folders of the past", () => {
  const entry = (at: number): raft.Entry => {
    const members = { n1: { url: "http://n1", incarnation: `folder ${at}` } };
    const data = raft.encodeConfiguration({ ...raft.plainConfiguration([n1]), members });
    return { term: term(1), index: index(at), kind: "config", data };
  };

  test("are remembered when their configuration is compacted, the newest 256 of them", () => {
    const history = new ConfigurationHistory(index(0), null, []);
    for (let at = 1; at <= 300; at++) history.append(entry(at));
    history.compact(index(300));
    expect(history.hasHeld("folder 300")).toBe(true);
    expect(history.hasHeld("folder 45")).toBe(true);
    expect(history.hasHeld("folder 44")).toBe(false);
    expect(history.hasHeld("another folder")).toBe(false);
  });
});
