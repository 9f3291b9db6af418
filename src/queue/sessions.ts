/**
 * Nothing is done twice (T2): the answers to each member's commands, kept until the member reports that it
 * received them. One row per entry and member; the map in memory is rebuilt from the rows at open.
 *
 * A session is one boot of one member. Only acknowledged answers are ever dropped. A member's driver has at
 * most 16,384 commands unanswered, so what is kept above its watermark is bounded by what it can send
 * while its oldest command waits; a session that passes ANSWERS_MAX all the same belongs to a driver that never
 * acknowledges, and is closed: its new commands are refused until that member starts anew. Refusing them
 * for good, rather than dropping answers, is what keeps "once" true.
 */
import type { Database, Statement } from "bun:sqlite";
import type { LoggedRequest } from "../replica/ports.ts";
import type { StoredAnswer } from "./answers.ts";

/** Answers kept above a member's watermark: 5 s of 50,000 commands a second while one waits its time out. */
const ANSWERS_MAX = 262_144;

interface Session {
  boot: number;
  /** Every answer below this sequence has been received. */
  below: number;
  closed: boolean;
  readonly answers: Map<number, StoredAnswer>;
  /** Some of its answers are in the table. */
  stored: boolean;
}

/** Answers of one entry to one member; kept as one row while any of them may be asked for. */
interface Batch {
  readonly member: string;
  readonly entry: number;
  readonly last: number;
  readonly answers: readonly (readonly [number, StoredAnswer])[];
}

export type Admission =
  | { readonly kind: "new" }
  | { readonly kind: "repeat"; readonly answer: StoredAnswer }
  | { readonly kind: "stale" };

export class Sessions {
  readonly #sessions = new Map<string, Session>();
  readonly #save: Statement<unknown, [string, number, number, number]>;
  readonly #dropOld: Statement<unknown, [string, number]>;
  readonly #dropAll: Statement<unknown, [string]>;
  readonly #end: Statement<unknown, [string]>;
  readonly #insert: Statement<unknown, [string, number, number, string]>;
  /** Answers of the entry being applied, by member. */
  readonly #entry = new Map<string, [number, StoredAnswer][]>();
  /** Of earlier entries, not written: most are acknowledged before they would be. */
  #unsaved: Batch[] = [];
  readonly #touched = new Set<string>();
  readonly #answersMax: number;

  constructor(db: Database, answersMax: number = ANSWERS_MAX) {
    this.#answersMax = answersMax;
    this.#save = db.prepare(
      `INSERT INTO sessions (member, boot, below, closed) VALUES (?, ?, ?, ?)
       ON CONFLICT (member) DO UPDATE SET boot = excluded.boot, below = excluded.below, closed = excluded.closed`,
    );
    this.#dropOld = db.prepare("DELETE FROM answers WHERE member = ? AND last < ?");
    this.#dropAll = db.prepare("DELETE FROM answers WHERE member = ?");
    this.#end = db.prepare("DELETE FROM sessions WHERE member = ?");
    this.#insert = db.prepare(
      "INSERT INTO answers (member, entry, last, body) VALUES (?, ?, ?, ?)",
    );
    const sessions = db
      .query<{ member: string; boot: number; below: number; closed: number }, []>(
        "SELECT member, boot, below, closed FROM sessions ORDER BY member",
      )
      .all();
    for (const { member, boot, below, closed } of sessions) {
      this.#sessions.set(member, {
        boot,
        below,
        closed: closed === 1,
        answers: new Map(),
        stored: true,
      });
    }
    const rows = db.query<{ member: string; body: string }, []>(
      "SELECT member, body FROM answers ORDER BY member, entry",
    );
    for (const { member, body } of rows.iterate()) {
      const session = this.#sessions.get(member);
      if (session === undefined) continue;
      for (const [seq, answer] of JSON.parse(body) as [number, StoredAnswer][]) {
        if (seq >= session.below) session.answers.set(seq, answer);
      }
    }
  }

  /** Answers kept for a member; for the limit's test and metrics. */
  kept(member: string): number {
    return this.#sessions.get(member)?.answers.size ?? 0;
  }

  /** The member has every answer below `below`; what an older boot says counts for nothing. */
  acknowledge(member: string, boot: number, below: number): void {
    const session = this.#open(member, boot);
    if (session === null || below <= session.below) return;
    session.below = below;
    this.#touched.add(member);
    // Mostly in ascending order, but not always: an answer may come late.
    for (const seq of session.answers.keys()) {
      if (seq < below) session.answers.delete(seq);
    }
    this.#unsaved = this.#unsaved.filter((batch) => batch.member !== member || batch.last >= below);
  }

  /** Whether to carry a request out. */
  admit(request: LoggedRequest): Admission {
    const session = this.#open(request.member, request.boot);
    if (session === null || request.seq < session.below) return { kind: "stale" };
    const answer = session.answers.get(request.seq);
    if (answer !== undefined) return { kind: "repeat", answer };
    if (session.closed) return { kind: "stale" };
    if (session.answers.size >= this.#answersMax) {
      session.closed = true;
      this.#touched.add(request.member);
      return { kind: "stale" };
    }
    return { kind: "new" };
  }

  keep(request: LoggedRequest, answer: StoredAnswer): void {
    this.#sessions.get(request.member)?.answers.set(request.seq, answer);
    const batch = this.#entry.get(request.member);
    if (batch === undefined) this.#entry.set(request.member, [[request.seq, answer]]);
    else batch.push([request.seq, answer]);
  }

  /**
   * Ends the sessions of all but `members`: who was removed asks for nothing any more, and whoever comes back
   * under its id has another folder, which counts its starts from one again.
   */
  keepOnly(members: readonly string[]): void {
    for (const member of this.#sessions.keys()) {
      if (members.includes(member)) continue;
      this.#sessions.delete(member);
      this.#touched.delete(member);
      this.#entry.delete(member);
      this.#unsaved = this.#unsaved.filter((batch) => batch.member !== member);
      this.#dropAll.run(member);
      this.#end.run(member);
    }
  }

  /** The entry at `index` is over. */
  endEntry(index: number): void {
    for (const [member, answers] of this.#entry) {
      let last = 0;
      for (const [seq] of answers) last = Math.max(last, seq);
      this.#unsaved.push({ member, entry: index, last, answers });
    }
    this.#entry.clear();
  }

  /** Writes what is still to be remembered. */
  save(): void {
    for (const { member, entry, last, answers } of this.#unsaved) {
      this.#insert.run(member, entry, last, JSON.stringify(answers));
      const session = this.#sessions.get(member);
      if (session !== undefined) session.stored = true;
    }
    this.#unsaved = [];
    for (const member of this.#touched) {
      const session = this.#sessions.get(member);
      if (session === undefined) continue;
      // Once for all that was acknowledged since the last time: with an entry for each command it was a statement for each.
      if (session.stored) this.#dropOld.run(member, session.below);
      this.#save.run(member, session.boot, session.below, session.closed ? 1 : 0);
    }
    this.#touched.clear();
  }

  /** The session of this boot, begun if it is new; null when a newer boot was seen. */
  #open(member: string, boot: number): Session | null {
    const session = this.#sessions.get(member);
    if (session !== undefined && session.boot === boot) return session;
    if (session !== undefined && session.boot > boot) return null;
    if (session !== undefined) {
      this.#dropAll.run(member);
      // An older boot's answers of this very entry have not been written yet.
      this.#entry.delete(member);
      this.#unsaved = this.#unsaved.filter((batch) => batch.member !== member);
    }
    const fresh: Session = { boot, below: 0, closed: false, answers: new Map(), stored: false };
    this.#sessions.set(member, fresh);
    this.#touched.add(member);
    return fresh;
  }
}
