import { expect, test } from "bun:test";
import { Consistency } from "../../src/replica/consistency.ts";
import type { Question, Verdict, Word } from "../../src/replica/words.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { StateMachine } from "../../src/replica/ports.ts";
import { NodeClock, Prng, World } from "../sim/world.ts";

const IDS = ["n1", "n2", "n3"].map(asNodeId);
const [N1, N2, N3] = IDS as [(typeof IDS)[0], (typeof IDS)[0], (typeof IDS)[0]];

/** n1 leads; its log, and what it applied, ends at `index`. */
function leader(world: World, index: number) {
  const told: [string, unknown][] = [];
  const machine = {
    applied: () => ({ index: asIndex(index), term: asTerm(1) }),
    machineVersion: () => 1,
    chainAt: (at: number) => `chain of ${at}`,
  } as unknown as StateMachine;
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const consistency = new Consistency(
    {
      self: N1,
      clock: new NodeClock(world),
      random: world.prng,
      log,
      machine,
      auditor: null,
      leadership: () => ({ role: "leader", term: asTerm(1), leader: N1, active: true }),
      configuration: () => ({
        voters: IDS,
        outgoing: [],
        learners: [],
        learnersNext: [],
        members: Object.fromEntries(IDS.map((id) => [id, { url: "", incarnation: id }])),
      }),
      lastIndex: () => asIndex(index),
      notify: (_, method, body) => told.push([method, body]),
      hold: () => () => undefined,
      condemned: () => undefined,
      damaged: () => undefined,
    },
    null,
  );
  let now = 10_000;
  /** A round, in which n2 and n3 say so much; the verdict on it is told with the next question. */
  const round = (n2: Partial<Word>, n3: Partial<Word> | null): void => {
    const asked = question();
    consistency.heardWord({ ...wordFor(asked), ...n2 }, N2);
    if (n3 !== null) consistency.heardWord({ ...wordFor(asked), ...n3 }, N3);
    now += 3_000;
    consistency.tick(now);
    now += 3_000;
  };
  const question = (): Question => {
    consistency.tick(now);
    return told.findLast(([method]) => method === "consistency.ask")?.[1] as Question;
  };
  const verdicts = (): Verdict[] =>
    told.filter(([method]) => method === "consistency.verdict").map(([, body]) => body as Verdict);
  return { consistency, question, round, verdicts };
}

function wordFor({ round, index }: Question): Word {
  const chain = `chain of ${index}`;
  return { round, machineVersion: 1, chain, digest: null, next: null, condemned: null };
}

test("an answer to what this leader asked before it was started again is none to what it asks now", () => {
  const world = new World(1);
  const earlier = leader(world, 95).question();
  const { consistency, question, verdicts } = leader(world, 102);
  const now = question();
  consistency.heardWord(wordFor(now), N2);
  // Of a member that stood still meanwhile.
  consistency.heardWord(wordFor(earlier), N3);
  consistency.tick(13_000);
  expect(verdicts()).toEqual([]);
});

test("an answer to what it asks now is judged", () => {
  const { consistency, question, verdicts } = leader(new World(new Prng(1).uint32()), 102);
  const now = question();
  consistency.heardWord(wordFor(now), N2);
  consistency.heardWord({ ...wordFor(now), chain: "another" }, N3);
  consistency.tick(13_000);
  expect(verdicts().length).toBeGreaterThan(0);
});

test("who was found wrong stays so until it knew it and is mended, and is told again if it did not hear of it", () => {
  const { consistency, question, round, verdicts } = leader(new World(3), 102);
  const wrong = (): string[] => [...consistency.wrongMembers()];
  round({}, { chain: "another" });
  expect(wrong()).toEqual([N3]);
  expect(verdicts().length).toBe(2);
  // Its rows differed: these are others. It has not heard the verdict.
  round({}, {});
  expect(wrong()).toEqual([N3]);
  expect(verdicts().length).toBe(4);
  expect(verdicts().at(-1)).toEqual(verdicts()[0] as Verdict);
  expect(question().wrong).toEqual([N3]);
  round({}, { chain: null, condemned: "it is wrong" });
  // Away.
  for (let i = 0; i < 6; i++) round({}, null);
  expect(wrong()).toEqual([N3]);
  const before = verdicts().length;
  round({}, {});
  expect(wrong()).toEqual([]);
  expect(verdicts().length).toBe(before);
  expect(question().wrong).toEqual([]);
});
