import { expect, test } from "bun:test";
import type { ReviewedRound } from "../../src/replica/wrong-members.ts";
import { WrongMembers } from "../../src/replica/wrong-members.ts";
import type { Verdict, Word } from "../../src/replica/words.ts";
import { type Configuration, asIndex, asNodeId } from "../../src/raft/types.ts";

const [N1, N2, N3] = ["n1", "n2", "n3"].map((id) => asNodeId(id)) as [
  ReturnType<typeof asNodeId>,
  ReturnType<typeof asNodeId>,
  ReturnType<typeof asNodeId>,
];
const VERDICT: Verdict = { index: asIndex(9), words: [] };

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

/** A round in which n3 says so much; null: nothing. */
function round(passes: number, said: Partial<Word> | null, now = configuration()): ReviewedRound {
  const word: Word = {
    round: 1,
    machineVersion: 1,
    chain: "c",
    digest: "d",
    next: null,
    condemned: null,
  };
  const words = new Map([[N1, word]]);
  if (said !== null) words.set(N3, { ...word, ...said });
  return { words, minority: new Set(), compared: true, configuration: now, passes };
}

function found(): WrongMembers {
  const wrong = new WrongMembers();
  wrong.found(N3, VERDICT, round(0, {}));
  return wrong;
}

test("only passes in which its rows were compared mend who never knew that it was wrong", () => {
  const wrong = found();
  for (let pass = 0; pass < 9; pass++) expect(wrong.review(round(pass, null))).toEqual([]);
  for (let pass = 9; pass < 18; pass++) wrong.review(round(pass, { digest: null }));
  expect(wrong.ids(configuration())).toEqual([N3]);
  expect(wrong.review(round(18, {}))).toEqual([VERDICT]);
  wrong.review(round(20, {}));
  expect(wrong.ids(configuration())).toEqual([]);
});

test("who said that it is wrong is mended when it does not say so any more", () => {
  const wrong = found();
  wrong.review(round(0, { condemned: "it is wrong" }));
  wrong.review(round(5, null));
  expect(wrong.ids(configuration())).toEqual([N3]);
  wrong.review(round(5, {}));
  expect(wrong.ids(configuration())).toEqual([]);
});

test("what another leader found is not known to have been heard by whom it is about", () => {
  const wrong = new WrongMembers();
  wrong.keepOnly([N3], configuration(), 3);
  expect(wrong.review(round(3, {}))).toEqual([]);
  expect(wrong.ids(configuration())).toEqual([N3]);
  wrong.heard(N3, true, configuration(), 3);
  wrong.review(round(3, {}));
  expect(wrong.ids(configuration())).toEqual([]);
  wrong.keepOnly([N3], configuration(), 3);
  wrong.keepOnly([], configuration(), 3);
  expect(wrong.ids(configuration())).toEqual([]);
});

test("another folder of the same id is not wrong, and other voters do not judge the same words", () => {
  const wrong = found();
  expect(wrong.ids(configuration("other"))).toEqual([]);
  expect(wrong.review(round(0, {}, configuration("c", [N1, N3])))).toEqual([]);
  expect(wrong.ids(configuration())).toEqual([N3]);
  wrong.review(round(0, {}, configuration("other")));
  expect(wrong.ids(configuration())).toEqual([]);
});
