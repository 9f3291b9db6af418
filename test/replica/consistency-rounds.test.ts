import { expect, test } from "bun:test";
import { Consistency } from "../../src/replica/consistency.ts";
import type { Question, Verdict, Word } from "../../src/replica/words.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type { StateMachine } from "../../src/replica/ports.ts";
import { NodeClock, Prng, World } from "../sim/world.ts";

const IDS = ["n1", "n2", "n3"].map(asNodeId);
const [N1, N2, N3] = IDS as [(typeof IDS)[0], (typeof IDS)[0], (typeof IDS)[0]];

/** A member, under n1 that leads; its log, and what it applied, ends at `index`. */
function member(world: World, index: number, self: typeof N1) {
  const told: [string, unknown][] = [];
  const machine = {
    applied: () => ({ index: asIndex(index), term: asTerm(1) }),
    machineVersion: () => 1,
    chainAt: (at: number) => `chain of ${at}`,
  } as unknown as StateMachine;
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const role = self === N1 ? "leader" : "follower";
  const consistency = new Consistency(
    {
      self,
      incarnation: self,
      clock: new NodeClock(world),
      random: world.prng,
      log,
      machine,
      auditor: null,
      leadership: () => ({ role, term: asTerm(1), leader: N1, active: true }),
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
  return { consistency, told };
}

/** n1, which leads. */
function leader(world: World, index: number) {
  const { consistency, told } = member(world, index, N1);
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
  return { round, machineVersion: 1, chain, digest: null, next: null, condemned: null, admits: [] };
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
  const [said] = question().wrong ?? [];
  expect(said).toMatchObject({ id: N3, incarnation: N3 });
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

/** n3, that has the word of its leader that these states are wrong; what it says of its own. */
function follower() {
  const { consistency, told } = member(new World(4), 102, N3);
  const asked = (round: number, wrong: Question["wrong"]): Word => {
    const question: Question = { round, index: asIndex(102), cursor: null, wrong };
    consistency.heardQuestion(question, N1);
    return told.findLast(([method]) => method === "consistency.word")?.[1] as Word;
  };
  return { consistency, asked };
}

function stateOf(id: typeof N1, round: number, incarnation: string = id, admitted = false) {
  return { id, incarnation, round, admitted };
}

test("who was found wrong, and started anew before it heard of that, takes its leader's word for it", () => {
  const { consistency, asked } = follower();
  expect(asked(5, []).condemned).toBeNull();
  // Another folder that had its id; another member; and what its process before admitted, until it had another state.
  expect(asked(6, [stateOf(N3, 4, "other")]).condemned).toBeNull();
  expect(asked(7, [stateOf(N2, 4)]).condemned).toBeNull();
  expect(asked(8, [stateOf(N3, 4, N3, true)]).condemned).toBeNull();
  expect([...consistency.wrongMembers()]).toEqual([]);
  expect(asked(9, [stateOf(N3, 4)]).condemned).toContain("n3 is wrong");
  consistency.replaced();
  const word = asked(10, [stateOf(N3, 4)]);
  expect(word.condemned).toBeNull();
  expect(word.admits).toContain(4);
  expect([...consistency.wrongMembers()]).toEqual([]);
});

test("what was said of an earlier state is not taken for what is wrong with the next one", () => {
  const { consistency, asked } = follower();
  asked(5, []);
  consistency.replaced();
  asked(6, []);
  expect(asked(7, [stateOf(N3, 5)]).condemned).toBeNull();
  expect([...consistency.wrongMembers()]).toEqual([N3]);
  expect(asked(8, [stateOf(N3, 6)]).condemned).toContain("n3 is wrong");
});

test("who was mended between two questions says by which of its words it was found wrong", () => {
  const { consistency, asked } = follower();
  const wrong = asked(5, []);
  const right = { ...wrong, chain: "another" };
  const words: Verdict["words"] = [
    [N1, right],
    [N2, right],
    [N3, wrong],
  ];
  consistency.heardVerdict({ index: asIndex(102), words }, N1);
  expect(consistency.condemned).toContain("n3 is wrong");
  consistency.replaced();
  expect(asked(6, []).admits).toEqual([5]);
});

test("who was mended between two questions is not wrong for its leader either, from its next word on", () => {
  const { consistency, question, round } = leader(new World(5), 102);
  const { round: at } = question();
  round({}, { chain: "another" });
  expect([...consistency.wrongMembers()]).toEqual([N3]);
  round({}, { admits: [at] });
  expect([...consistency.wrongMembers()]).toEqual([]);
});
