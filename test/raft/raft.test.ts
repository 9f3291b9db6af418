/** What the traces cannot show: several inputs before effects are taken, limits, and broken promises of a driver. */
import { describe, expect, test } from "bun:test";
import { encodeConfiguration } from "../../src/raft/configuration.ts";
import { Raft, type RaftOptions } from "../../src/raft/raft.ts";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Effects,
  type Entry,
  type Message,
  type NodeId,
} from "../../src/raft/types.ts";

const [n1, n2, n3] = ["n1", "n2", "n3"].map(asNodeId) as [NodeId, NodeId, NodeId];

const OPTIONS: RaftOptions = {
  id: n1,
  heartbeatTicks: 2,
  electionTicks: 10,
  stallTicks: 20,
  drawElectionTicks: () => 15,
  maxAppendBytes: 1_000,
  maxInflightMessages: 4,
  maxInflightBytes: 1_000,
  maxUncommittedBytes: 1_000,
  maxWritesUnderWay: 50,
  maxReadsWaiting: 50,
  cacheBytes: 1_000,
};

function bootstrap(): Entry {
  const members = Object.fromEntries([n1, n2, n3].map((id) => [id, { url: id, incarnation: id }]));
  const data = encodeConfiguration({
    voters: [n1, n2, n3],
    outgoing: [],
    learners: [],
    learnersNext: [],
    members,
  });
  const text = `{"configuration":${new TextDecoder().decode(data)}}`;
  return {
    term: asTerm(1),
    index: asIndex(1),
    kind: "bootstrap",
    data: new TextEncoder().encode(text),
  };
}

function core(options: Partial<RaftOptions> = {}): Raft {
  const first = bootstrap();
  return new Raft(
    { ...OPTIONS, ...options },
    {
      hardState: { term: asTerm(1), vote: null },
      compacted: { index: asIndex(0), term: asTerm(0) },
      terms: [{ index: asIndex(1), term: asTerm(1) }],
      lastIndex: asIndex(1),
      tail: [first],
      configurations: [first],
      snapshotConfiguration: null,
      applied: asIndex(1),
    },
  );
}

/** Takes the effects and lets the disk finish at once. */
function settle(raft: Raft): Effects[] {
  const taken: Effects[] = [];
  for (let effects = raft.takeEffects(); effects !== null; effects = raft.takeEffects()) {
    taken.push(effects);
    if (effects.persist === null) continue;
    const last = effects.persist.entries.at(-1);
    raft.persisted({
      hardState: effects.persist.hardState,
      last: last === undefined ? null : { index: last.index, term: last.term },
    });
  }
  return taken;
}

function leader(options: Partial<RaftOptions> = {}): Raft {
  const raft = core(options);
  raft.campaign();
  raft.step({ from: n2, to: n1, term: asTerm(2), type: "vote-reply", pre: true, granted: true });
  raft.step({ from: n2, to: n1, term: asTerm(2), type: "vote-reply", pre: false, granted: true });
  settle(raft);
  expect(raft.role).toBe("leader");
  return raft;
}

function entry(index: number, term: number, bytes = 0): Entry {
  return {
    index: asIndex(index),
    term: asTerm(term),
    kind: "command",
    data: new Uint8Array(bytes),
  };
}

function append(
  from: NodeId,
  term: number,
  prev: [number, number],
  entries: Entry[],
  commit = 1,
): Message {
  return {
    from,
    to: n1,
    term: asTerm(term),
    type: "append",
    prevIndex: asIndex(prev[0]),
    prevTerm: asTerm(prev[1]),
    entries,
    commit: asIndex(commit),
  };
}

/** The answer to an append behind `prevIndex`: this member holds all up to `match`. */
function acknowledgement(from: NodeId, match: number, prevIndex = match): Message {
  return {
    type: "append-reply",
    from,
    to: n1,
    term: asTerm(2),
    prevIndex: asIndex(prevIndex),
    match: asIndex(match),
    hint: null,
  };
}

describe("a learner", () => {
  test("is not promoted before it holds the change that added its folder: by an older one it may not vote", () => {
    const raft = leader();
    const learner = asNodeId("n9");
    const acknowledges = (from: NodeId, match: number): void => {
      raft.step(acknowledgement(from, match));
      settle(raft);
    };
    acknowledges(n2, 2);
    const record = { url: "http://n9", incarnation: "second" };
    expect(raft.proposeChange([{ op: "add-learner", id: learner, record }]).ok).toBe(true);
    settle(raft);
    acknowledges(n2, 3);
    expect(raft.commit).toBe(asIndex(3));
    // It has two of three entries: few enough are missing, but the third is the one that makes it a member.
    acknowledges(learner, 2);
    expect(raft.behind(learner)).toContain("not caught up");
    expect(raft.proposeChange([{ op: "promote", id: learner }]).ok).toBe(false);
    acknowledges(learner, 3);
    expect(raft.behind(learner)).toBeNull();
    expect(raft.proposeChange([{ op: "promote", id: learner }]).ok).toBe(true);
  });
});

describe("effects", () => {
  test("hold no acknowledgement for entries that were replaced before they were handed to storage", () => {
    const raft = core();
    raft.step(append(n2, 2, [1, 1], [entry(2, 2), entry(3, 2)]));
    raft.step(append(n3, 3, [1, 1], [entry(2, 3)]));
    const effects = raft.takeEffects();
    expect(effects?.persist?.entries.map(({ term }) => term)).toEqual([asTerm(3)]);
    const acknowledged = effects?.afterPersist.map((message) => [
      message.to,
      "match" in message ? message.match : null,
    ]);
    expect(acknowledged).toEqual([[n3, asIndex(2)]]);
  });

  test("hold a vote that was given in the same turn, before entries were replaced", () => {
    const raft = core();
    raft.step(append(n3, 2, [1, 1], [entry(2, 2)]));
    settle(raft);
    const log = { lastIndex: asIndex(9), lastTerm: asTerm(2) };
    const asks = { type: "vote", pre: false, transfer: true, leaderLost: false } as const;
    raft.step({ from: n2, to: n1, term: asTerm(3), ...asks, ...log });
    raft.step(append(n2, 3, [1, 1], [entry(2, 3)]));
    expect(raft.takeEffects()?.afterPersist).toMatchObject([
      { type: "vote-reply", granted: true },
      { type: "append-reply", match: 2 },
    ]);
  });

  test("make one append of what one turn proposed, together with what it committed", () => {
    const raft = leader();
    raft.step(acknowledgement(n2, 2, 1));
    for (const letter of ["a", "b", "c"])
      raft.propose([{ kind: "command", data: new TextEncoder().encode(letter) }]);
    const effects = raft.takeEffects();
    const appends = effects?.messages.filter(({ to, type }) => to === n2 && type === "append");
    expect(appends).toHaveLength(1);
    expect(appends?.[0]).toMatchObject({ commit: asIndex(2), entries: [{}, {}, {}] });
    expect(effects?.persist?.entries).toHaveLength(3);
    expect(raft.takeEffects()).toBeNull();
  });

  test("end: an idle core has nothing to do", () => {
    const raft = core();
    raft.takeEffects();
    raft.tick();
    expect(raft.takeEffects()).toBeNull();
  });
});

describe("limits", () => {
  test("more reads than can wait are refused, and every one is answered once when leadership is lost", () => {
    const raft = leader();
    for (let id = 0; id < OPTIONS.maxReadsWaiting + 10; id++) raft.readIndex(id);
    const refused = settle(raft).flatMap(({ reads }) => reads);
    expect(refused).toHaveLength(10);
    raft.step({
      from: n2,
      to: n1,
      term: asTerm(9),
      type: "heartbeat",
      commit: asIndex(0),
      round: 1,
    });
    const rest = settle(raft).flatMap(({ reads }) => reads);
    expect(rest).toHaveLength(OPTIONS.maxReadsWaiting);
    expect(rest.every(({ index }) => index === null)).toBe(true);
  });

  test("a follower forgets the oldest read whose answer never came, and says so", () => {
    const raft = core();
    raft.step({
      from: n2,
      to: n1,
      term: asTerm(2),
      type: "heartbeat",
      commit: asIndex(0),
      round: 1,
    });
    for (let id = 0; id <= OPTIONS.maxReadsWaiting; id++) raft.readIndex(id);
    expect(settle(raft).flatMap(({ reads }) => reads)).toEqual([{ id: 0, index: null }]);
  });

  test("a disk that hangs does not fill the memory: appends are not taken any more", () => {
    const raft = core();
    let index = 1;
    for (let n = 0; n < 100; n++) {
      raft.step(append(n2, 2, [index, index === 1 ? 1 : 2], [entry(index + 1, 2, 100)]));
      raft.takeEffects();
      index = raft.lastIndex;
    }
    expect(raft.lastIndex).toBeLessThan(20);
    expect(raft.durable).toBe(asIndex(1));
  });

  test("a disk that hangs does not gather writes without end: what needs another one is not heard", () => {
    const raft = core();
    raft.takeEffects();
    for (let term = 2; term < OPTIONS.maxWritesUnderWay + 100; term++) {
      raft.step({
        from: n2,
        to: n1,
        term: asTerm(term),
        type: "vote",
        pre: false,
        transfer: true,
        leaderLost: false,
        lastIndex: asIndex(9),
        lastTerm: asTerm(1),
      });
      raft.takeEffects();
    }
    expect(raft.term).toBe(asTerm(OPTIONS.maxWritesUnderWay + 1));
  });

  test("a member does not campaign while its disk has not written the last term", () => {
    const raft = core();
    raft.step({ from: n2, to: n1, term: asTerm(5), type: "vote-reply", pre: true, granted: false });
    const persist = raft.takeEffects()?.persist;
    raft.campaign();
    expect(raft.role).toBe("follower");
    raft.persisted({ hardState: persist?.hardState ?? null, last: null });
    raft.campaign();
    expect(raft.role).toBe("pre-candidate");
  });
});

describe("what storage answers", () => {
  test("is not sent on when its terms are not those of the log", () => {
    const raft = leader({ cacheBytes: 1 });
    raft.propose([{ kind: "command", data: new Uint8Array(100) }]);
    settle(raft);
    raft.step({
      from: n2,
      to: n1,
      term: asTerm(2),
      type: "append-reply",
      prevIndex: asIndex(1),
      match: null,
      hint: { index: asIndex(1), term: asTerm(1) },
    });
    raft.step({ from: n2, to: n1, term: asTerm(2), type: "heartbeat-reply", round: 0 });
    const fetches = settle(raft).flatMap((effects) => effects.fetches);
    expect(fetches).toContainEqual({ peer: n2, from: asIndex(1), to: asIndex(3), maxBytes: 1_000 });
    raft.fetched(n2, [bootstrap(), entry(2, 1), entry(3, 1)]);
    expect(settle(raft).flatMap(({ messages }) => messages)).toEqual([]);
    // It is asked again when the peer next gives a sign.
    raft.step({ from: n2, to: n1, term: asTerm(2), type: "heartbeat-reply", round: 0 });
    expect(settle(raft).flatMap((effects) => effects.fetches)).toHaveLength(1);
    raft.fetched(n2, [bootstrap(), entry(2, 2), entry(3, 2)]);
    expect(settle(raft).flatMap(({ messages }) => messages)).toMatchObject([
      { type: "append", to: n2, prevIndex: 0, entries: [{}, {}, {}] },
    ]);
  });

  test("comes when the log begins behind it: nothing is sent, or a snapshot", () => {
    const raft = leader({ cacheBytes: 0 });
    const reply = (from: NodeId, prevIndex: number, match: number): void =>
      raft.step(acknowledgement(from, match, prevIndex));
    raft.propose([{ kind: "command", data: new Uint8Array(1) }]);
    settle(raft);
    reply(n3, 1, 3);
    settle(raft);
    raft.applied(raft.applicable);
    // The second one asks for entries that are in storage only, and its connection ends while they are read.
    reply(n2, 1, 1);
    expect(settle(raft).flatMap(({ fetches }) => fetches)).toMatchObject([{ peer: n2, from: 2 }]);
    raft.disconnected(n2);
    reply(n2, 1, 1);
    raft.compacted(asIndex(2));
    raft.tick();
    const sent = settle(raft).flatMap(({ messages }) => messages);
    expect(sent.filter(({ to, type }) => to === n2 && type === "commit")).toEqual([]);
    // It answers a heartbeat and gets the offer of a snapshot, which it cannot install.
    raft.step({ from: n2, to: n1, term: asTerm(2), type: "heartbeat-reply", round: 0 });
    expect(settle(raft).flatMap(({ snapshots }) => snapshots)).toEqual([n2]);
    const index = asIndex(3);
    raft.step({ from: n2, to: n1, term: asTerm(2), type: "snapshot-reply", index, ok: false });
    raft.fetched(n2, [entry(2, 2), entry(3, 2, 1)]);
    expect(settle(raft).flatMap(({ messages }) => messages)).toEqual([]);
  });

  test("to a write that no one handed over counts for nothing", () => {
    const raft = leader();
    const before = raft.durable;
    raft.propose([{ kind: "command", data: new Uint8Array(1) }]);
    raft.takeEffects();
    raft.persisted({ hardState: null, last: { index: asIndex(3), term: asTerm(1) } });
    raft.persisted({ hardState: { term: asTerm(2), vote: n2 }, last: null });
    expect(raft.durable).toBe(before);
    raft.persisted({ hardState: null, last: { index: asIndex(3), term: asTerm(2) } });
    expect(raft.durable).toBe(asIndex(3));
  });
});

test("a leader whose disk stalls hands over to the voter that holds most, not to a learner that holds more", () => {
  const raft = leader();
  const learner = asNodeId("n9");
  const acknowledges = (from: NodeId, match: number): void =>
    raft.step(acknowledgement(from, match));
  acknowledges(n2, 2);
  const record = { url: "http://n9", incarnation: "i" };
  expect(raft.proposeChange([{ op: "add-learner", id: learner, record }]).ok).toBe(true);
  settle(raft);
  raft.propose([{ kind: "command", data: new Uint8Array(1) }]);
  raft.takeEffects();
  acknowledges(learner, 4);
  acknowledges(n2, 4);
  acknowledges(n3, 4);
  for (let tick = 0; tick <= OPTIONS.stallTicks; tick++) {
    for (const from of [n2, n3])
      raft.step({ from, to: n1, term: asTerm(2), type: "heartbeat-reply", round: 1 });
    raft.tick();
  }
  expect(raft.transferTarget).toBe(n2);
});

test("whoever is to take over is not told to when the same turn gives the transfer up and appends", () => {
  const raft = leader();
  raft.step(acknowledgement(n2, 2, 1));
  raft.propose([{ kind: "command", data: new Uint8Array(1) }]);
  settle(raft);
  expect(raft.transfer(n2)).toBe(true);
  // This member stood still: what came meanwhile and the ticks that it missed are seen at once.
  raft.step(acknowledgement(n2, 3, 2));
  for (let tick = 0; tick < OPTIONS.electionTicks; tick++) {
    raft.step({ from: n2, to: n1, term: asTerm(2), type: "heartbeat-reply", round: 1 });
    raft.tick();
  }
  expect(raft.transferTarget).toBeNull();
  expect(raft.propose([{ kind: "command", data: new Uint8Array(1) }]).ok).toBe(true);
  const sent = settle(raft).flatMap(({ messages }) => messages);
  expect(sent.filter(({ type }) => type === "timeout-now")).toEqual([]);
  expect(sent.some(({ type, to }) => type === "append" && to === n2)).toBe(true);
});

test("leadership may be handed to a voter that stays, and to nobody else", () => {
  const raft = leader();
  const learner = asNodeId("n9");
  const acknowledge = (): void => {
    raft.step(acknowledgement(n2, raft.lastIndex));
    settle(raft);
  };
  const mayLead = (): string[] =>
    [...raft.progress()].filter(([, { mayLead: may }]) => may).map(([id]) => id);
  acknowledge();
  expect(mayLead()).toEqual(["n2", "n3"]);
  const record = { url: "http://n9", incarnation: "i" };
  expect(raft.proposeChange([{ op: "add-learner", id: learner, record }]).ok).toBe(true);
  settle(raft);
  acknowledge();
  expect(mayLead()).toEqual(["n2", "n3"]);
  // Until this is committed n3 is a voter of the old half.
  expect(raft.proposeChange([{ op: "remove", id: n3 }]).ok).toBe(true);
  settle(raft);
  expect(mayLead()).toEqual(["n2"]);
  expect(raft.transfer(n3)).toBe(false);
  expect(raft.transfer(n2)).toBe(true);
});

describe("ticks that did not come in time", () => {
  test("count for a leader's heartbeats", () => {
    const raft = leader({ heartbeatTicks: 5 });
    const beats = (): number =>
      settle(raft).flatMap(({ messages }) => messages.filter(({ type }) => type === "heartbeat"))
        .length;
    raft.tick();
    expect(beats()).toBe(0);
    raft.tick(true, 3);
    expect(beats()).toBe(2);
    raft.tick(true, 40);
    expect(beats()).toBe(2);
    raft.tick();
    expect(beats()).toBe(0);
  });

  test("count for nothing else: neither a follower's election timer nor a leader's quorum", () => {
    const follower = core();
    for (let tick = 0; tick < 14; tick++) follower.tick(true, 1_000);
    expect(follower.role).toBe("follower");
    follower.tick();
    expect(follower.role).toBe("pre-candidate");
    const leading = leader();
    for (let tick = 0; tick < OPTIONS.electionTicks - 1; tick++) leading.tick(true, 1_000);
    expect(leading.role).toBe("leader");
  });
});

describe("a broken promise stops the member", () => {
  test("applying what is committed and not durable here", () => {
    const raft = core();
    raft.step(append(n2, 2, [1, 1], [entry(2, 2)], 2));
    raft.takeEffects();
    expect(raft.commit).toBe(asIndex(2));
    expect(raft.applicable).toBe(asIndex(1));
    expect(() => raft.applied(asIndex(2))).toThrow("committed and durable");
  });

  test("compacting what is not applied", () => {
    const raft = leader();
    expect(() => raft.compacted(asIndex(2))).toThrow("only what is applied");
  });

  test("a log without what was known to be committed", () => {
    const recovered = {
      hardState: { term: asTerm(3), vote: null },
      compacted: { index: asIndex(0), term: asTerm(0) },
      terms: [{ index: asIndex(1), term: asTerm(1) }],
      lastIndex: asIndex(1),
      tail: [],
      configurations: [bootstrap()],
      snapshotConfiguration: null,
      applied: asIndex(4),
    };
    expect(() => new Raft(OPTIONS, recovered)).toThrow("lost entries");
  });

  test("a log of a later term than the hard state", () => {
    const recovered = {
      hardState: { term: asTerm(0), vote: null },
      compacted: { index: asIndex(0), term: asTerm(0) },
      terms: [{ index: asIndex(1), term: asTerm(1) }],
      lastIndex: asIndex(1),
      tail: [],
      configurations: [bootstrap()],
      snapshotConfiguration: null,
      applied: asIndex(1),
    };
    expect(() => new Raft(OPTIONS, recovered)).toThrow("later term");
  });

  test("a second leader in one term", () => {
    const raft = leader();
    expect(() => raft.step(append(n3, 2, [1, 1], []))).toThrow("two leaders");
  });
});

test("a candidate that installs a snapshot asks anew, and its installed log is the whole of it", () => {
  const raft = core();
  raft.campaign();
  settle(raft);
  const configuration = { ...raft.configuration, voters: [n2, n3] };
  raft.snapshotInstalled({ index: asIndex(9), term: asTerm(4), configuration });
  expect([raft.role, raft.term, raft.lastIndex, raft.lastTerm, raft.commit, raft.durable]).toEqual([
    "follower",
    asTerm(4),
    asIndex(9),
    asTerm(4),
    asIndex(9),
    asIndex(9),
  ]);
  raft.campaign();
  expect(raft.role).toBe("follower"); // no voter any more
});
