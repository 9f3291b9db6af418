import { expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm, type NodeId } from "../../src/raft/types.ts";
import type { PeerProgress } from "../../src/raft/raft.ts";
import { Handover } from "../../src/replica/handover.ts";
import { ManualClock, silent } from "../storage/manual-clock.ts";

const [N1, N2, N3] = [asNodeId("n1"), asNodeId("n2"), asNodeId("n3")];

/** A leader of three that is asked to give its place away; whom it handed over to. */
function handedTo(known: {
  readonly match?: Readonly<Record<string, number>>;
  readonly heardMs?: Readonly<Record<string, number>>;
  readonly wrong?: readonly NodeId[];
  readonly leaving?: readonly NodeId[];
}): NodeId | null {
  let target: NodeId | null = null;
  const progress = (id: NodeId): readonly [NodeId, PeerProgress] => [
    id,
    {
      match: asIndex(known.match?.[id] ?? 5),
      next: asIndex(6),
      state: "replicate",
      inflight: 0,
      inflightBytes: 0,
      // The quorum was counted in this very tick.
      recentActive: false,
      mayLead: !(known.leaving ?? []).includes(id),
    },
  ];
  const handover = new Handover({
    self: N1,
    core: {
      raft: {
        role: "leader",
        progress: () => new Map([progress(N1), progress(N2), progress(N3)]),
        transfer: (to) => {
          target = to;
          return true;
        },
      },
      isStopped: false,
      electionTicks: 100,
      schedulePump: () => undefined,
    },
    standing: { leadership: { role: "leader", term: asTerm(1), leader: N1, active: true } },
    clockWatch: { agreesWith: () => true, skewed: () => null },
    consistency: { wrongMembers: () => new Set(known.wrong ?? []) },
    contacts: { sinceMs: (id) => known.heardMs?.[id] ?? 20 },
    room: { fullMembers: new Set() },
    transport: { isConnected: () => true },
    clock: new ManualClock(),
    log: silent,
  });
  handover.giveUp("it should not stay here");
  return target;
}

test("leadership goes to who was heard within an election timeout, also in the tick in which the quorum is counted", () => {
  expect(handedTo({})).toBe(N2);
  expect(handedTo({ heardMs: { n2: 1_001 } })).toBe(N3);
  expect(handedTo({ heardMs: { n2: 1_001, n3: 1_001 } })).toBeNull();
});

test("of those it goes to who holds most, and to nobody whose state is wrong", () => {
  expect(handedTo({ match: { n3: 6 } })).toBe(N3);
  expect(handedTo({ match: { n3: 6 }, wrong: [N3] })).toBe(N2);
  expect(handedTo({ wrong: [N2, N3] })).toBeNull();
});

test("who is on its way out is nobody to hand over to, and does not stand in the way of who stays", () => {
  expect(handedTo({ match: { n2: 6 }, leaving: [N2] })).toBe(N3);
  expect(handedTo({ leaving: [N2, N3] })).toBeNull();
});
