import { expect, test } from "bun:test";
import {
  asIndex,
  asNodeId,
  asTerm,
  type Message,
  type PersistAck,
  type PersistOp,
} from "../../src/raft/types.ts";
import { Persistence } from "../../src/replica/persistence.ts";
import type { LogStore } from "../../src/replica/ports.ts";

/** A disk that answers when it is told to. */
function slowDisk(): { store: LogStore; answer: () => void } {
  const waiting: (() => void)[] = [];
  const append = (op: PersistOp, done: (ack: PersistAck) => void): void => {
    waiting.push(() => done({ hardState: op.hardState, last: null }));
  };
  return { store: { append } as LogStore, answer: () => waiting.shift()?.() };
}

const reply = (term: number, match: number): Message => ({
  type: "append-reply",
  from: asNodeId("n2"),
  to: asNodeId("n1"),
  term: asTerm(term),
  prevIndex: asIndex(0),
  match: asIndex(match),
  hint: null,
});
const inTerm = (term: number): PersistOp => ({
  hardState: { term: asTerm(term), vote: null },
  entries: [],
});

test("a message leaves when all that was handed over before it is durable", () => {
  const { store, answer } = slowDisk();
  const sent: Message[] = [];
  const persistence = new Persistence(store, (message) => sent.push(message));
  persistence.write(inTerm(1), () => undefined);
  persistence.write({ hardState: null, entries: [] }, () => undefined);
  persistence.sendAfter([reply(1, 5)]);
  answer();
  expect(sent).toEqual([]);
  answer();
  expect(sent).toEqual([reply(1, 5)]);
  persistence.sendAfter([reply(1, 6)]);
  expect(sent).toHaveLength(2);
});

test("what a member would vouch for in a term that it has left is not sent any more", () => {
  const { store, answer } = slowDisk();
  const sent: Message[] = [];
  const persistence = new Persistence(store, (message) => sent.push(message));
  persistence.write({ hardState: null, entries: [] }, () => undefined);
  persistence.sendAfter([reply(2, 662)]);
  persistence.write(inTerm(3), () => undefined);
  persistence.sendAfter([reply(3, 661)]);
  answer();
  answer();
  expect(sent).toEqual([reply(3, 661)]);
});

test("a disk that hangs for hours does not gather promises without end", () => {
  const { store, answer } = slowDisk();
  const sent: Message[] = [];
  const persistence = new Persistence(store, (message) => sent.push(message));
  persistence.write({ hardState: null, entries: [] }, () => undefined);
  for (let n = 0; n < 100_000; n++) persistence.sendAfter([reply(1, 5)]);
  answer();
  expect(sent.length).toBeLessThan(10_000);
  persistence.sendAfter([reply(1, 6)]);
  expect(sent.at(-1)).toEqual(reply(1, 6));
});
