/**
 * Do all members have the same state? (T9)
 *
 * On its clock the leader asks everybody, itself too, for two hashes as of one index: the rolling hash of what
 * apply decided, and a hash over the next rows of the tables as they lie on the disk, a slice at a time, round and
 * round. The index is the leader's last one: no member can have applied more when it hears the question on the
 * connection that the entries came by, so each stops there for the moment in which its reader begins.
 *
 *     leader              everybody
 *     question ─────────→ reaches the index, begins to read, goes on applying
 *              ←───────── word: chain, hash of the slice
 *     verdict  ─────────→ only if words differ: each judges itself by all words
 *
 * Who differs from a majority of the voters is wrong: it stops answering, hands leadership over and takes the state of
 * the others (its log is right, so it goes on storing entries and voting meanwhile). Without a majority nobody is known to
 * be wrong: an alarm.
 */
import type { Configuration, LogIndex, NodeId } from "../raft/types.ts";
import type { Leadership } from "./consensus.ts";
import {
  type Auditor,
  type Clock,
  type Log,
  type Millis,
  type Random,
  StateDamage,
  type StateMachine,
} from "./ports.ts";
import {
  ADMITS_MAX,
  comparable,
  judge,
  type Judgement,
  parseQuestion,
  parseVerdict,
  parseWord,
  type Question,
  type Verdict,
  type Word,
  type WrongState,
} from "./words.ts";
import { type ReviewedRound, votersOf, WrongMembers } from "./wrong-members.ts";

/** Between two questions while there is something new to ask about. */
const ROUND_MS: Millis = 1_000;
/** Between two questions when all rows were read as of an index that is still the newest. */
const IDLE_MS: Millis = 5_000;
/** What was not answered by then is not waited for. */
const ANSWER_MS: Millis = 2_000;
/** Applies are held this long at most for a reader to begin. */
const BEGIN_MS: Millis = 50;
const MENDS =
  "It does not answer until it has taken the state of the others, which it does by itself; what was wrong is kept in its data folder";
/** Words that a verdict may still be about. */
const SAID_MAX = 8;
/** An alarm that the leader does not repeat is over: who is away and known to be wrong raises none. */
const ALARM_MS: Millis = 15_000;

export interface ConsistencyPort {
  readonly self: NodeId;
  /** Of this folder. */
  readonly incarnation: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly machine: StateMachine;
  /** Null: rows are not read, the rolling hash alone is compared. */
  readonly auditor: Auditor | null;
  readonly leadership: () => Leadership;
  readonly configuration: () => Configuration;
  /** Of this member's log. */
  readonly lastIndex: () => LogIndex;
  readonly notify: (to: NodeId, method: string, body: unknown) => void;
  /** Applies wait until what is returned is called; what was applied is in the state's file. */
  readonly hold: () => () => void;
  /** This member is known to differ: told once. */
  readonly condemned: (sentence: string) => void;
  /** Its file is damaged, and there is nobody to take another state from. */
  readonly damaged: (error: StateDamage) => void;
}

interface Round {
  readonly question: Question;
  readonly deadline: Millis;
  readonly words: Map<NodeId, Word>;
  readonly asked: ReadonlySet<NodeId>;
}

/** A difference without a majority. */
interface Split {
  readonly verdict: Verdict;
  readonly voters: string;
  readonly pass: number;
}

/** What is wrong; `member` null: nobody knows who. */
export interface ConsistencyAlarm {
  readonly member: NodeId | null;
  readonly sentence: string;
}

export class Consistency {
  readonly #port: ConsistencyPort;
  #condemned: string | null;

  // Leader.
  #nextAt: Millis = 0;
  /** A round of this leadership is over. */
  #hasAsked = false;
  /** Begins anywhere: what a member answers to this one's earlier process must be no answer to this one. */
  #rounds: number;
  #round: Round | null = null;
  #cursor: string | null = null;
  /** Index as of which the first slice of this pass was read; the pass is over and nothing new: that index. */
  #passIndex: LogIndex | null = null;
  #passDone: LogIndex | null = null;
  /** A difference without a majority, found in this pass or the one before: told until one finds none. */
  #found: Split | null = null;
  #passes = 0;

  // Everybody.
  #question: { readonly from: NodeId; readonly question: Question; readonly until: Millis } | null =
    null;
  #reading = false;
  /** The newest words: a verdict may come late, or again. */
  #said: readonly Word[] = [];
  /** The newest rounds whose words were about a state that this process knew, or knows, to be wrong. */
  #admitted: readonly number[] = [];
  /** The state is not the one that this process was started with. */
  #isReplaced = false;
  #alarms: readonly ConsistencyAlarm[] = [];
  #alarmsAt: Millis = 0;
  readonly #wrong = new WrongMembers();
  readonly #checked = { index: 0, rounds: 0, rows: 0, passes: 0, pausedSeconds: 0 };

  /** `condemned`: a sentence when this very state was found wrong before the process was started. */
  constructor(port: ConsistencyPort, condemned: string | null) {
    this.#port = port;
    this.#condemned = condemned;
    this.#rounds = port.random.uint32();
  }

  /** A sentence when this member is known to differ: it does not answer any more. */
  get condemned(): string | null {
    return this.#condemned;
  }

  /**
   * Last index at which this member gave its word; rounds, rows and whole passes so far, and how long applies were held for
   * readers to begin.
   */
  get checked(): Readonly<
    Record<"index" | "rounds" | "rows" | "passes" | "pausedSeconds", number>
  > {
    return { ...this.#checked };
  }

  alarms(): readonly ConsistencyAlarm[] {
    const { clock, self } = this.#port;
    const heard = clock.monotonic() - this.#alarmsAt > ALARM_MS ? [] : this.#alarms;
    if (this.#condemned === null) return heard;
    const own = { member: self, sentence: this.#condemned };
    return [own, ...heard.filter(({ member }) => member !== self)];
  }

  /** Members whose state is known to be wrong, as far as this one has heard, also while they are away: they would not lead. */
  wrongMembers(): ReadonlySet<NodeId> {
    return new Set(this.#wrongStates().map(({ id }) => id));
  }

  #wrongStates(): readonly WrongState[] {
    const { configuration, self: id, incarnation } = this.#port;
    const known = this.#wrong.list(configuration());
    if (this.#condemned === null) return known;
    const round = this.#admitted.at(-1) ?? this.#rounds;
    const own = { id, incarnation, round, admitted: true };
    return [...known.filter((state) => state.id !== id), own];
  }

  /** Leader: it has asked everybody since it began to lead, so who answers and is known to be wrong is in `wrongMembers`. */
  get hasAsked(): boolean {
    return this.#hasAsked;
  }

  /** The state was replaced by a snapshot: what was wrong with the one before is gone. */
  replaced(): void {
    this.#condemned = null;
    this.#isReplaced = true;
    this.#wrong.mended(this.#port.self);
    this.#question = null;
    // A verdict that is still on its way judges what the state before said.
    this.#said = [];
  }

  // ------------------------------------------------------------------ leader

  /** Called at every tick. */
  tick(now: Millis): void {
    const question = this.#question;
    if (question !== null && now >= question.until) this.#question = null;
    const { role, active } = this.#port.leadership();
    if (role !== "leader" || !active) {
      this.#round = null;
      this.#found = null;
      this.#hasAsked = false;
      this.#nextAt = now;
      return;
    }
    const round = this.#round;
    if (round !== null && (now >= round.deadline || round.words.size === round.asked.size))
      this.#close(round);
    if (this.#round === null && now >= this.#nextAt) this.#ask(now);
  }

  #ask(now: Millis): void {
    const { configuration, lastIndex, notify, self } = this.#port;
    this.#nextAt = now + ROUND_MS;
    const members = Object.keys(configuration().members) as NodeId[];
    const index = lastIndex();
    // Who is alone compares with nobody; reading every row once shows whether the file can be read.
    if ((members.length < 2 && this.#passes > 0) || index === 0) return;
    if (this.#passDone === index) this.#nextAt = now + IDLE_MS;
    if (this.#cursor === null) this.#passIndex = index;
    this.#rounds += 1;
    const wrong = this.#wrongStates();
    const question = { round: this.#rounds, index, cursor: this.#cursor, wrong };
    this.#round = {
      question,
      deadline: now + ANSWER_MS,
      words: new Map(),
      asked: new Set(members),
    };
    for (const member of members) if (member !== self) notify(member, "consistency.ask", question);
    this.heardQuestion(question, self);
  }

  heardWord(body: unknown, from: NodeId): void {
    const word = parseWord(body);
    const round = this.#round;
    if (word === null || round === null || word.round !== round.question.round) return;
    if (round.asked.has(from)) round.words.set(from, word);
  }

  #close({ question, words }: Round): void {
    const { self, configuration } = this.#port;
    const membership = configuration();
    this.#round = null;
    this.#hasAsked = true;
    const judged = (["chain", "digest"] as const).map((part) =>
      judge(comparable(words, part), membership),
    );
    const verdict: Verdict = { index: question.index, words: [...words] };
    const voters = votersOf(membership);
    const own = words.get(self);
    const round: ReviewedRound = {
      words,
      minority: new Set(judged.flatMap((part) => part.minority)),
      disputed: judged.some(({ split }) => split),
      compared: own !== undefined && own.digest !== null,
      configuration: membership,
      passes: this.#passes,
    };
    // Who is in a minority says so itself from now on; of a split nobody else would tell again.
    if (round.disputed)
      this.#found = { verdict: ofTheSplit(verdict, judged), voters, pass: this.#passes };
    if (this.#found !== null && this.#found.voters !== voters) this.#found = null;
    this.#wrong.found(verdict, round);
    const again = this.#wrong.review(round);
    if (own !== undefined && own.digest !== null) this.#advance(own, question);
    const differs =
      round.minority.size > 0 || [...words.values()].some(({ condemned }) => condemned !== null);
    for (const earlier of again) this.#tell(withoutCondemned(earlier));
    if (differs) this.#tell(verdict);
    else if (this.#found !== null) this.#tell(withoutCondemned(this.#found.verdict));
  }

  /** To the next rows; behind the last ones, from the first again. */
  #advance({ next }: Word, { index }: Question): void {
    this.#cursor = next;
    if (next !== null) return;
    this.#passes += 1;
    this.#checked.passes += 1;
    this.#passDone = this.#passIndex === index ? index : null;
    if (this.#found !== null && this.#passes - this.#found.pass > 1) this.#found = null;
  }

  #tell(verdict: Verdict): void {
    const { configuration, notify, self } = this.#port;
    for (const member of Object.keys(configuration().members) as NodeId[])
      if (member !== self) notify(member, "consistency.verdict", verdict);
    this.heardVerdict(verdict, self);
  }

  // ------------------------------------------------------------------ everybody

  /** Index at which applying must pause for a moment; null: none. */
  get stopAt(): LogIndex | null {
    return this.#question?.question.index ?? null;
  }

  heardQuestion(body: unknown, from: NodeId): void {
    const question = parseQuestion(body);
    if (question === null) return;
    const { leadership, self } = this.#port;
    if (question.wrong !== null && from !== self && from === leadership().leader)
      this.#heardWrong(question.wrong, from);
    if (this.#condemned !== null) {
      // That is all there is to say of a state that may not even be able to go on.
      this.#say(question, from, null);
      return;
    }
    const until = this.#port.clock.monotonic() + ANSWER_MS;
    this.#question = { from, question, until };
    this.reached();
  }

  #heardWrong(states: readonly WrongState[], from: NodeId): void {
    const { configuration, self, incarnation } = this.#port;
    const own = states.find((state) => state.id === self && state.incarnation === incarnation);
    const isKnown = own === undefined || own.admitted || this.#admitted.includes(own.round);
    // Where it is not condemned any more, it has another state since.
    const others =
      isKnown && this.#condemned === null ? states.filter((state) => state !== own) : states;
    this.#wrong.keepOnly(others, configuration(), this.#passes);
    if (isKnown || this.#condemned !== null) return;
    // The verdict did not come, or went to the process before this one, which gave that word on this very state.
    if (this.#isReplaced && !this.#said.some(({ round }) => round === own.round)) return;
    this.#admit(own.round);
    this.#condemn(`the state of ${self} is wrong: ${from} found that before, and leads. ${MENDS}`);
  }

  #admit(round: number): void {
    if (!this.#admitted.includes(round))
      this.#admitted = [...this.#admitted, round].slice(-ADMITS_MAX);
  }

  /** Something was applied. */
  reached(): void {
    const asked = this.#question;
    const { machine } = this.#port;
    const applied = machine.applied().index;
    if (asked === null || applied < asked.question.index) return;
    this.#question = null;
    if (applied === asked.question.index) void this.#audit(asked.question, asked.from);
    else this.#say(asked.question, asked.from, null);
  }

  async #audit(question: Question, from: NodeId): Promise<void> {
    const { auditor, clock, log, hold } = this.#port;
    if (auditor === null || this.#reading) {
      this.#say(question, from, null);
      return;
    }
    this.#reading = true;
    const heldAt = clock.monotonic();
    const letGo = hold();
    let held = true;
    const release = (): void => {
      if (held) this.#checked.pausedSeconds += (clock.monotonic() - heldAt) / 1_000;
      held = false;
      letGo();
    };
    const timer = clock.after(BEGIN_MS, release);
    let index = -1;
    try {
      const slice = await auditor.read(question.cursor, (begun) => {
        index = begun;
        timer.cancel();
        release();
      });
      this.#checked.rows += slice.rows;
      // It began too late: applies went on without it.
      this.#say(question, from, index === question.index ? slice : null);
    } catch (error) {
      if (error instanceof StateDamage) this.#damaged(error);
      else log.warn("rows could not be read for the consistency check", { error: String(error) });
      this.#say(question, from, null);
    } finally {
      timer.cancel();
      release();
      this.#reading = false;
    }
  }

  #say(
    { round, index }: Question,
    from: NodeId,
    slice: { readonly digest: string; readonly next: string | null } | null,
  ): void {
    const { machine, notify, self } = this.#port;
    if (this.#condemned !== null) this.#admit(round);
    const word: Word = {
      round,
      machineVersion: machine.machineVersion(),
      chain: this.#condemned === null ? machine.chainAt(index) : null,
      digest: slice?.digest ?? null,
      next: slice?.next ?? null,
      condemned: this.#condemned,
      admits: this.#admitted,
    };
    this.#said = [...this.#said, word].slice(-SAID_MAX);
    this.#checked.index = index;
    this.#checked.rounds += 1;
    if (from === self) this.heardWord(word, self);
    else notify(from, "consistency.word", word);
  }

  heardVerdict(body: unknown, from: NodeId): void {
    const verdict = parseVerdict(body);
    const { clock, configuration, leadership, self } = this.#port;
    if (verdict === null || from !== leadership().leader) return;
    const membership = configuration();
    const alarms = new Map<NodeId | null, string>();
    const { index } = verdict;
    const words = verdict.words.filter(([id]) => id in membership.members);
    // Who applied something differently has other rows too: that it is said of it counts.
    for (const part of ["digest", "chain"] as const) {
      const { minority, split } = judge(comparable(words, part), membership);
      for (const id of minority) alarms.set(id, this.#sentence(id, part, index));
      if (split) alarms.set(null, splitSentence(words, part, index));
    }
    for (const [id, { condemned }] of words) if (condemned !== null) alarms.set(id, condemned);
    // Not what an earlier folder of this id said.
    const said = this.#said.find((word) =>
      words.some(([id, judged]) => id === self && sameWord(word, judged)),
    );
    const own = said === undefined ? undefined : alarms.get(self);
    this.#alarms = [...alarms].map(([member, sentence]) => ({ member, sentence }));
    this.#alarmsAt = clock.monotonic();
    for (const [id, { round, condemned }] of words) {
      if (!alarms.has(id)) continue;
      const incarnation = membership.members[id]?.incarnation ?? "";
      const state = { id, incarnation, round, admitted: condemned !== null };
      this.#wrong.heard(state, membership, this.#passes);
    }
    if (said === undefined || own === undefined) return;
    this.#admit(said.round);
    this.#condemn(own);
  }

  #condemn(sentence: string): void {
    if (this.#condemned !== null) return;
    this.#condemned = sentence;
    this.#port.condemned(sentence);
  }

  /** It needs no others to know that: but for a state that is right. */
  #damaged(error: StateDamage): void {
    const { self, configuration, damaged } = this.#port;
    if (Object.keys(configuration().members).length < 2) damaged(error);
    else
      this.#condemn(
        `the state of ${self} is wrong: its file is damaged (${error.message}). ${MENDS}`,
      );
  }

  #sentence(id: NodeId, part: "chain" | "digest", index: LogIndex): string {
    const how =
      part === "chain"
        ? "applied the log differently than a majority of the members"
        : "has other rows on its disk than a majority of the members";
    return `the state of ${id} is wrong: up to index ${index} it ${how}. ${MENDS}`;
  }
}

function sameWord(one: Word, other: Word): boolean {
  return one.round === other.round && one.chain === other.chain && one.digest === other.digest;
}

/** Told again: who knew of itself then may be mended by now, and says so itself otherwise. */
function withoutCondemned({ index, words }: Verdict): Verdict {
  return { index, words: words.map(([id, word]) => [id, { ...word, condemned: null }]) };
}

/** Without the part in which a majority agrees: who differs from it may be mended when this is told again. */
function ofTheSplit({ index, words }: Verdict, [chain, digest]: readonly Judgement[]): Verdict {
  const only = (word: Word): Word => ({
    ...word,
    chain: chain?.split === true ? word.chain : null,
    digest: digest?.split === true ? word.digest : null,
  });
  return { index, words: words.map(([id, word]) => [id, only(word)]) };
}

function splitSentence(words: Verdict["words"], part: "chain" | "digest", index: LogIndex): string {
  const members = [...comparable(words, part).keys()].sort().join(", ");
  return (
    `the states of ${members} differ at index ${index} (${part === "chain" ? "what they applied" : "rows on the disk"}), ` +
    "and no majority agrees: nobody is known to be right. Take a backup of each, and see docs/consistency.md"
  );
}
