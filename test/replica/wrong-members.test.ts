import { expect, test } from "bun:test";
import type { ReviewedRound } from "../../src/replica/wrong-members.ts";
import { WrongMembers } from "../../src/replica/wrong-members.ts";
import type { Verdict, Word, WrongState } from "../../src/replica/words.ts";
import { type Configuration, asIndex, asNodeId } from "../../src/raft/types.ts";

const [N1, N2, N3] = ["n1", "n2", "n3"].map((id) => asNodeId(id)) as [
  ReturnType<typeof asNodeId>,
  ReturnType<typeof asNodeId>,
  ReturnType<typeof asNodeId>,
];
/** By their words of this round n2 or n3 was found wrong. */
const FOUND_AT = 7;

function configuration(folderOfN3 = "c", voters = [N1, N2, N3]): Configuration {
  return {
    voters,
    outgoing: [],
    learners: [],
    learnersNext: [],
    members: Object.fromEntries(
      [N1, N2, N3].map((id) => [id, { url: "", incarnation: id === N3 ? folderOfN3 : id }]),
    ),
  };
}

const WORD: Word = {
  round: FOUND_AT,
  machineVersion: 1,
  chain: "c",
  digest: "d",
  next: null,
  condemned: null,
  admits: [],
};
const ODD: Word = { ...WORD, digest: "odd" };
const VERDICT: Verdict = {
  index: asIndex(9),
  words: [
    [N1, WORD],
    [N3, ODD],
  ],
};

/** A round in which n3 says so much; null: nothing. */
function round(
  passes: number,
  said: Partial<Word> | null,
  now = configuration(),
  others: Partial<ReviewedRound> = {},
): ReviewedRound {
  const words = new Map([[N1, WORD]]);
  if (said !== null) words.set(N3, { ...WORD, round: 8, ...said });
  return {
    words,
    minority: new Set(),
    disputed: false,
    compared: true,
    configuration: now,
    passes,
    ...others,
  };
}

function found(): WrongMembers {
  const wrong = new WrongMembers();
  wrong.found(VERDICT, round(0, {}, configuration(), { minority: new Set([N3]) }));
  return wrong;
}

/** Of n3, by what it said in that round. */
function stateOf(round: number, admitted = false): WrongState {
  return { id: N3, incarnation: "c", round, admitted };
}

function ids(wrong: WrongMembers, now = configuration()): string[] {
  return wrong.list(now).map(({ id }) => id);
}

test("only passes in which its rows were compared mend who never knew that it was wrong", () => {
  const wrong = found();
  for (let pass = 0; pass < 9; pass++) expect(wrong.review(round(pass, null))).toEqual([]);
  for (let pass = 9; pass < 18; pass++) wrong.review(round(pass, { digest: null }));
  expect(ids(wrong)).toEqual([N3]);
  expect(wrong.review(round(18, {}))).toEqual([VERDICT]);
  wrong.review(round(20, {}));
  expect(ids(wrong)).toEqual([]);
});

test("who said that it is wrong is mended when it does not say so any more", () => {
  const wrong = found();
  wrong.review(round(0, { condemned: "it is wrong" }));
  wrong.review(round(5, null));
  expect(ids(wrong)).toEqual([N3]);
  wrong.review(round(5, {}));
  expect(ids(wrong)).toEqual([]);
});

test("what another leader found is not known to have been heard by whom it is about", () => {
  const wrong = new WrongMembers();
  wrong.keepOnly([stateOf(FOUND_AT)], configuration(), 3);
  expect(wrong.review(round(3, {}))).toEqual([]);
  expect(ids(wrong)).toEqual([N3]);
  wrong.heard(stateOf(8, true), configuration(), 3);
  wrong.review(round(3, {}));
  expect(ids(wrong)).toEqual([]);
  wrong.keepOnly([stateOf(FOUND_AT)], configuration(), 3);
  wrong.keepOnly([], configuration(), 3);
  expect(ids(wrong)).toEqual([]);
});

test("another folder of the same id is not wrong, and other voters do not judge the same words", () => {
  const wrong = found();
  expect(ids(wrong, configuration("other"))).toEqual([]);
  expect(wrong.review(round(0, {}, configuration("c", [N1, N3])))).toEqual([]);
  expect(ids(wrong)).toEqual([N3]);
  wrong.review(round(0, {}, configuration("other")));
  expect(ids(wrong)).toEqual([]);
});

test("who was mended between two rounds admits by which of its words it was found wrong", () => {
  const wrong = found();
  wrong.review(round(0, { admits: [3] }));
  expect(ids(wrong)).toEqual([N3]);
  expect(wrong.review(round(0, { admits: [3, FOUND_AT] }))).toEqual([]);
  expect(ids(wrong)).toEqual([]);
});

test("what it admitted before it was found wrong again is about another state", () => {
  const wrong = new WrongMembers();
  wrong.heard(stateOf(FOUND_AT, true), configuration(), 0);
  wrong.heard(stateOf(9), configuration(), 0);
  wrong.review(round(0, { admits: [FOUND_AT] }));
  expect(ids(wrong)).toEqual([N3]);
  wrong.review(round(0, { admits: [9] }));
  expect(ids(wrong)).toEqual([]);
});

test("rounds in which words differ, and nobody knows who is right, find nobody right", () => {
  const wrong = found();
  for (let pass = 0; pass < 9; pass++)
    wrong.review(round(pass, { digest: "odd" }, configuration(), { disputed: true }));
  expect(ids(wrong)).toEqual([N3]);
});

test("who is mended is not said to be wrong again with the others", () => {
  const wrong = new WrongMembers();
  const words: Verdict["words"] = [
    [N1, WORD],
    [N2, ODD],
    [N3, ODD],
  ];
  const both = { minority: new Set([N2, N3]) };
  wrong.found({ index: asIndex(9), words }, round(0, {}, configuration(), both));
  const again = wrong.review(round(0, { admits: [FOUND_AT] }));
  expect(again).toEqual([]);
  const heard = round(0, { admits: [FOUND_AT] });
  const all = new Map([...heard.words, [N2, { ...WORD, round: 8 }] as const]);
  expect(wrong.review({ ...heard, words: all })).toEqual([
    {
      index: asIndex(9),
      words: [
        [N1, WORD],
        [N2, ODD],
      ],
    },
  ]);
  expect(ids(wrong)).toEqual([N2]);
});
