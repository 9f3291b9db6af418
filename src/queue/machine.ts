/**
 * The replicated task machine: committed entries in, rows and answers out. `apply` is a function of the
 * entries and the tables alone.
 *
 * The entries of several calls share one transaction with the applied index (the state database is at any
 * moment exactly some prefix of the log), and most rows of it are written only when it ends: see task-table.ts.
 * Memory has everything at once; other connections see it after {@link TaskMachine.flush}.
 */
import type { Database, Statement } from "bun:sqlite";
import { asIndex, asTerm, type LogIndex, type Term } from "../raft/types.ts";
import {
  type CommittedEntry,
  FatalError,
  isNoRoom,
  type LoggedRequest,
  NoRoomError,
  type RequestAnswer,
  type StateMachine,
} from "../replica/ports.ts";
import type { MachineVersions } from "../replica/versions.ts";
import { restoreAnswer, type StoredAnswer, storedAnswer } from "./answers.ts";
import { Chain, ChainHistory } from "./chain.ts";
import { decodeCommand } from "./command-codec.ts";
import { type Answer, type Command, MACHINE_VERSIONS, type Signal } from "./commands.ts";
import { logicalHash } from "./hash.ts";
import { Execution } from "./execution.ts";
import { isKept, packAnswer, unpackAnswer } from "./first-answer.ts";
import { IdempotencyKeys } from "./idempotency.ts";
import { isUnconfirmed, type Takeover } from "./leaderships.ts";
import { RUNNING, type TaskRow, toRunningLease, toTask } from "./rows.ts";
import { openSchema } from "./schema.ts";
import { Sessions } from "./sessions.ts";
import type { ReadyLimits } from "./ready.ts";
import { bootstrapSettings, mergeSettings } from "./settings.ts";
import type { LogPage, RunningLease, SignalListener, TaskState } from "./state.ts";
import { type AttemptRow, TaskStore } from "./store.ts";
import {
  type Attempt,
  type AttemptOutcome,
  type ClaimRef,
  type ClaimedTask,
  DEFAULT_SETTINGS,
  type IdempotencyScope,
  type NewTask,
  type Settings,
  type Status,
  type Task,
  type TaskError,
} from "./types.ts";

/** Limits that tests lower; production takes them as they are. */
export interface MachineLimits {
  readonly idempotencyKeys?: number;
  readonly idempotencyBytes?: number;
  readonly sessionAnswers?: number;
  readonly names?: number;
  /** Rows that may be changed in memory and not committed; 0 (the default): every call of `apply` commits. */
  readonly writeBehind?: number;
  readonly ready?: ReadyLimits;
  /** Machine versions that this build applies: tests play an older or a newer one. */
  readonly machineVersions?: MachineVersions;
}

/**
 * Rows that a member in production holds uncommitted: some tenths of a second at full load, and as much of the
 * log to be applied again after a crash. The driver flushes sooner, by its clock.
 */
export const WRITE_BEHIND_ROWS = 8_192;
/** Characters of payloads and results among them. */
const WRITE_BEHIND_TEXT_MAX = 8 * 1024 * 1024;

interface StateRow {
  readonly machine_version: number;
  readonly cluster_id: string | null;
  readonly settings: string;
  readonly applied_index: number;
  readonly applied_term: number;
  readonly log_time: number;
  readonly takeovers: string;
  readonly idempotency_keys: number;
  readonly idempotency_bytes: number;
  readonly chain: string;
}

/** What a command is answered, and what of it is kept for its repeat (T2). */
interface Judged {
  readonly answer: Answer;
  readonly stored: StoredAnswer;
}

/** Before entry 1 the state is of the oldest version: builds of all versions begin alike. */
function prepareTables(db: Database, versions: MachineVersions): void {
  const settings = mergeSettings(DEFAULT_SETTINGS, {}, versions.oldest);
  openSchema(db, JSON.stringify(settings), versions);
}

/** Entries whose chain is remembered: what a member may be behind another one and still be compared with it. */
const CHAIN_KEPT = 4_096;

export class TaskMachine implements StateMachine, TaskState {
  readonly #limits: MachineLimits;
  // All of it mirrors one database, and is set together by #load.
  #db!: Database;
  #store!: TaskStore;
  #sessions!: Sessions;
  #keys!: IdempotencyKeys;
  #execution!: Execution;
  #chain!: Chain;
  #chainHistory!: ChainHistory;
  #clusterId!: string | null;
  #applied!: { index: LogIndex; term: Term };
  #logTime!: number;
  /** A transaction failed half-way: memory no longer mirrors the tables. */
  #broken = false;
  /** A transaction is open: what was applied since the last commit is in it, or in memory. */
  #uncommitted = false;

  readonly #listeners = new Set<SignalListener>();
  #begin!: Statement<unknown, []>;
  #commit!: Statement<unknown, []>;
  #saveState!: Statement<unknown, (number | string)[]>;
  #saveClusterId!: Statement<unknown, [string]>;

  /**
   * Creates the tables in an empty database, or takes up where it stands. The database is this machine's
   * alone to write. @throws FatalError when another schema or machine version wrote it
   */
  static open(db: Database, limits: MachineLimits = {}): TaskMachine {
    prepareTables(db, limits.machineVersions ?? MACHINE_VERSIONS);
    return new TaskMachine(db, limits);
  }

  private constructor(db: Database, limits: MachineLimits) {
    this.#limits = limits;
    this.#load(db);
  }

  /**
   * A snapshot has replaced the state: goes on with this database, and forgets the one before. Nobody is told
   * by signals; who waits looks again (`FlotillaQueue.recheck`).
   * @throws FatalError when another schema or machine version wrote it
   */
  reopen(db: Database): void {
    prepareTables(db, this.#limits.machineVersions ?? MACHINE_VERSIONS);
    // What it has not committed is part of what the snapshot replaces.
    if (this.#uncommitted) this.#db.run("ROLLBACK");
    this.#load(db);
  }

  #load(db: Database): void {
    const limits = this.#limits;
    this.#db = db;
    this.#broken = false;
    this.#uncommitted = false;
    const state = db
      .query<StateRow, []>(
        "SELECT machine_version, cluster_id, settings, applied_index, applied_term, log_time, takeovers, idempotency_keys, idempotency_bytes, chain FROM state",
      )
      .get();
    if (state === null) throw new FatalError("the state database has no state row");
    this.#clusterId = state.cluster_id;
    this.#applied = { index: asIndex(state.applied_index), term: asTerm(state.applied_term) };
    this.#logTime = state.log_time;
    this.#chain = new Chain(state.chain);
    this.#chainHistory = new ChainHistory(CHAIN_KEPT);
    this.#chainHistory.keep(state.applied_index, state.chain);
    const settings = JSON.parse(state.settings) as Settings;
    this.#store = new TaskStore(db, settings, state.machine_version, this.#chain, limits.ready);
    this.#sessions = new Sessions(db, limits.sessionAnswers);
    this.#keys = new IdempotencyKeys(
      db,
      { keys: state.idempotency_keys, bytes: state.idempotency_bytes },
      {
        ...(limits.idempotencyKeys === undefined ? {} : { keys: limits.idempotencyKeys }),
        ...(limits.idempotencyBytes === undefined ? {} : { bytes: limits.idempotencyBytes }),
      },
    );
    const takeovers = JSON.parse(state.takeovers) as Takeover[];
    this.#execution = new Execution(
      db,
      this.#store,
      this.#keys,
      takeovers,
      (limits.machineVersions ?? MACHINE_VERSIONS).newest,
      limits.names,
    );

    this.#begin = db.prepare("BEGIN IMMEDIATE");
    this.#commit = db.prepare("COMMIT");
    this.#saveState = db.prepare(
      `UPDATE state SET applied_index = ?, applied_term = ?, log_time = ?, changed = ?, fence = ?, seq = ?,
         ready_seq = ?, leadership = ?, pending = ?, running = ?, completed = ?, failed = ?, cancelled = ?,
         idempotency_keys = ?, idempotency_bytes = ?, chain = ?`,
    );
    this.#saveClusterId = db.prepare("UPDATE state SET cluster_id = ?");
  }

  // --- applying

  applied(): { readonly index: LogIndex; readonly term: Term } {
    return this.#applied;
  }

  logTime(): number {
    return this.#logTime;
  }

  apply(entries: readonly CommittedEntry[]): readonly RequestAnswer[] {
    if (this.#broken) throw new FatalError("an earlier apply failed: the state must be reopened");
    if (entries.length === 0) return [];
    const answers: RequestAnswer[] = [];
    this.#whole(() => {
      if (!this.#uncommitted) this.#begin.run();
      else this.#mustBeOpen();
      this.#uncommitted = true;
      for (const entry of entries) this.#applyEntry(entry, answers);
      this.#store.saveEnded();
      const { rows, text } = this.#store.table.waiting;
      const most = this.#limits.writeBehind ?? 0;
      if (most === 0 || rows >= most || text >= WRITE_BEHIND_TEXT_MAX) this.#write();
    });
    const signals = this.#store.takeSignals();
    if (signals.length > 0) this.#emit(signals);
    return answers;
  }

  /** Commits everything that was applied: other connections see it, and a restart goes on behind it. */
  flush(): void {
    if (this.#uncommitted && !this.#broken) this.#whole(() => this.#write());
  }

  #write(): void {
    this.#mustBeOpen();
    this.#store.save();
    this.#sessions.save();
    this.#execution.claims.save();
    this.#saveCounters();
    this.#commit.run();
    this.#uncommitted = false;
  }

  /**
   * The state becomes the beginning of another cluster's (rebirth.ts): at `position`, far behind whatever the old
   * one may have given out elsewhere, its fences too. Nobody of the old one has a session.
   */
  beginAnew(
    clusterId: string,
    position: { readonly index: LogIndex; readonly term: Term },
    fenceJump: number,
  ): void {
    this.flush();
    this.#whole(() => {
      this.#begin.run();
      this.#uncommitted = true;
      this.#clusterId = clusterId;
      this.#saveClusterId.run(clusterId);
      this.#sessions.keepOnly([]);
      this.#store.fence += fenceJump;
      this.#applied = position;
      this.#chain.mixText(clusterId);
      this.#chainHistory.keep(position.index, this.#chain.value());
      this.#write();
    });
  }

  /**
   * An error leaves the last commit, and a machine that answers nothing any more; a full disk leaves one that stands
   * where that commit does.
   */
  #whole(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#broken = true;
      this.#uncommitted = false;
      if (this.#db.inTransaction) this.#db.run("ROLLBACK");
      if (!isNoRoom(error)) throw error;
      this.#load(this.#db);
      throw new NoRoomError("the disk has no room for the state");
    }
  }

  /** Looks at tables whose newest rows may have to be written first: what that fails at is a write's failure. */
  #saving<T>(look: () => T): T {
    if (this.#broken || !this.#uncommitted) return look();
    const seen: { value?: T } = {};
    this.#whole(() => {
      this.#mustBeOpen();
      seen.value = look();
    });
    return seen.value as T;
  }

  /**
   * SQLite rolls a whole transaction back by itself at some errors. Statements behind that would commit one by one: an applied index
   * without its rows.
   * @throws FatalError
   */
  #mustBeOpen(): void {
    if (!this.#db.inTransaction)
      throw new FatalError("the state's transaction was rolled back by the engine");
  }

  #applyEntry(entry: CommittedEntry, answers: RequestAnswer[]): void {
    if (entry.index !== this.#applied.index + 1) {
      throw new FatalError(
        `entry ${entry.index} does not follow the applied index ${this.#applied.index}`,
      );
    }
    this.#logTime = Math.max(this.#logTime, entry.now);
    this.#store.moment = {
      index: entry.index,
      term: entry.term,
      now: this.#logTime,
      seed: entry.seed,
    };
    if (entry.bootstrap !== null) {
      this.#clusterId = entry.bootstrap.clusterId;
      this.#saveClusterId.run(this.#clusterId);
      this.#chain.mixText(this.#clusterId);
      const { settings, machineVersion } = entry.bootstrap;
      this.#execution.useVersion(machineVersion);
      this.#execution.changeSettings(bootstrapSettings(settings, machineVersion));
    }
    if (entry.members !== undefined) this.#sessions.keepOnly(entry.members);
    for (const { member, boot, below } of entry.acks) {
      this.#sessions.acknowledge(member, boot, below);
    }
    for (const request of entry.requests) {
      const { member, boot, seq } = request;
      const answer = this.#once(request);
      this.#chainAnswer(seq, answer);
      answers.push({ member, boot, seq, answer });
    }
    this.#sessions.endEntry(entry.index);
    this.#applied = { index: entry.index, term: entry.term };
    this.#chainCounters(entry);
  }

  #chainAnswer(seq: number, answer: Answer): void {
    const chain = this.#chain;
    chain.mix(seq);
    if (!answer.ok) {
      chain.mixText(answer.code);
      return;
    }
    const { value } = answer;
    chain.mixText(value.type);
    switch (value.type) {
      case "submitted":
        chain.mix(value.existing ? 1 : 0);
        chain.mix(value.ids.length);
        return;
      case "claimed":
        chain.mix(value.tasks.length);
        return;
      case "ended":
        for (const item of value.items) chain.mixText(item);
        return;
      case "cleared":
        chain.mix(value.cleared);
        return;
      case "done":
        chain.mix(value.count);
        chain.mix(value.more ? 1 : 0);
        return;
      case "cancelled":
      case "retried":
      case "settings":
      case "remembered":
        return;
    }
  }

  /** Closes an entry's part of the chain: whatever was decided differently shows in a counter at the latest. */
  #chainCounters({ index, term, seed }: CommittedEntry): void {
    const store = this.#store;
    const chain = this.#chain;
    chain.mix(index);
    chain.mix(term);
    chain.mix(seed);
    chain.mix(this.#logTime);
    chain.mix(store.machineVersion);
    chain.mix(store.changed);
    chain.mix(store.fence);
    chain.mix(store.seq);
    chain.mix(store.readySeq);
    chain.mix(store.leadership);
    for (let status = 0; status < store.counts.length; status++)
      chain.mix(store.counts[status] ?? null);
    chain.mix(this.#keys.kept.keys);
    chain.mix(this.#keys.kept.bytes);
    this.#chainHistory.keep(index, chain.value());
  }

  /** T2: carries a request out the first time, and answers a repeat as then. */
  #once(request: LoggedRequest): Answer {
    const admission = this.#sessions.admit(request);
    switch (admission.kind) {
      case "stale":
        return { ok: false, code: "stale-session" };
      case "repeat":
        return this.#restore(admission.answer, asCommand(request));
      case "new": {
        this.#store.changed++;
        const { answer, stored } = this.#idempotent(asCommand(request));
        this.#sessions.keep(request, stored);
        return answer;
      }
    }
  }

  /** An idempotency key gives the first answer again, whichever command it came with. */
  #idempotent(command: Command): Judged {
    const { idem } = command;
    if (idem === undefined) {
      const outcome = this.#execution.execute(command);
      return { answer: outcome.answer, stored: storedAnswer(outcome) };
    }
    const { now } = this.#store.moment;
    const found = this.#keys.find(idem, now);
    switch (found.kind) {
      case "mismatch":
        return refusal("idempotency-mismatch");
      case "replay":
        return {
          answer: unpackAnswer(found.answer, command),
          stored: { ok: true, keyed: "replayed" },
        };
      case "none": {
        if (!this.#keys.reserve(idem, now)) return refusal("idempotency-full");
        const outcome = this.#execution.execute(command);
        const answer = this.#withTasks(outcome.answer, command);
        if (!isKept(answer)) return { answer, stored: storedAnswer(outcome) };
        this.#keys.keep(idem, now, packAnswer(answer));
        return { answer, stored: { ok: true, keyed: "first" } };
      }
    }
  }

  /** An answer whose tasks the caller would have to read, complete: as they are at this point of the log. */
  #withTasks(answer: Answer, command: Command): Answer {
    if (!answer.ok) return answer;
    const { value } = answer;
    switch (value.type) {
      case "submitted": {
        const sent = command.type === "submit" ? command.tasks : [];
        return { ...answer, value: { ...value, tasks: sent.map((task) => this.#submitted(task)) } };
      }
      case "retried":
        return { ...answer, value: { ...value, task: this.#present(this.#store.byId(value.id)) } };
      case "cancelled":
      case "cleared":
      case "settings":
      case "claimed":
      case "ended":
      case "remembered":
      case "done":
        return answer;
    }
  }

  /** Only a task that was there already has a result; its payload is the one sent in any case. */
  #submitted({ id, payload, body_hash }: NewTask): Task {
    const row = body_hash === null ? this.#store.slimById(id) : this.#store.byId(id);
    return { ...this.#present(row), payload };
  }

  #present(row: TaskRow | null): Task {
    if (row === null) throw new FatalError("a command answered with a task that is not there");
    return toTask(row, this.#store.settings.lease);
  }

  #restore(stored: StoredAnswer, command: Command): Answer {
    if (!("keyed" in stored)) {
      return restoreAnswer(stored, (claim) => this.#execution.stillLeased(claim));
    }
    // Never expired here: a member asks again for seconds, a key stays for a day.
    const found = command.idem === undefined ? null : this.#keys.find(command.idem, 0);
    if (found?.kind !== "replay") return { ok: false, code: "stale-session" };
    const { ok, value, replayed } = unpackAnswer(found.answer, command);
    return stored.keyed === "first" ? { ok, value } : { ok, value, replayed: replayed === true };
  }

  #saveCounters(): void {
    const store = this.#store;
    this.#saveState.run(
      this.#applied.index,
      this.#applied.term,
      this.#logTime,
      store.changed,
      store.fence,
      store.seq,
      store.readySeq,
      store.leadership,
      ...store.counts,
      this.#keys.kept.keys,
      this.#keys.kept.bytes,
      this.#chain.value(),
    );
  }

  #emit(signals: readonly Signal[]): void {
    const at = { index: this.#applied.index, now: this.#logTime };
    for (const listener of this.#listeners) listener(signals, at);
  }

  // --- reading

  onSignals(listener: SignalListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  settings(): Settings {
    return this.#store.settings;
  }

  machineVersion(): number {
    return this.#store.machineVersion;
  }

  clusterId(): string | null {
    return this.#clusterId;
  }

  task(id: string): Task | null {
    const row = this.#store.byId(id);
    return row === null ? null : toTask(row, this.#store.settings.lease);
  }

  tasksByIds(ids: readonly string[]): (Task | null)[] {
    return ids.map((id) => this.task(id));
  }

  attempts(id: string): readonly Attempt[] | null {
    const row = this.#store.slimById(id);
    if (row === null) return null;
    const attempts = this.#store.endedAttempts(row).map(toAttempt);
    if (row.status === RUNNING) attempts.push(runningAttempt(row));
    return attempts;
  }

  logs(id: string, cursor: string | null, limit: number): LogPage | null {
    const row = this.#store.slimById(id);
    return row === null ? null : this.#execution.reports.page(row, cursor, limit);
  }

  counts(): Readonly<Record<Status, number>> {
    const [Pending, Running, Completed, Failed, Cancelled] = this.#store.counts;
    return { Pending, Running, Completed, Failed, Cancelled };
  }

  ready(): ReadonlyMap<string, ReadonlyMap<string, number>> {
    return this.#store.ready.counts();
  }

  namedNames(): ReadonlySet<string> {
    return this.#execution.named.all();
  }

  running(): readonly RunningLease[] {
    return this.#saving(() => this.#execution.sweeps.leases()).map(toRunningLease);
  }

  leaseOf(id: string): RunningLease | null {
    const row = this.#store.slimById(id);
    return row === null || row.status !== RUNNING ? null : toRunningLease(row);
  }

  claimAnswer(name: ClaimRef): readonly ClaimedTask[] | null {
    const earlier = this.#execution.claims.find(name);
    return earlier === null ? null : this.#execution.stillLeased(earlier);
  }

  keyedAnswer(scope: IdempotencyScope): Answer | null {
    const found = this.#keys.find(scope, this.#logTime);
    switch (found.kind) {
      case "none":
        return null;
      case "mismatch":
        return refusal("idempotency-mismatch").answer;
      case "replay":
        return unpackAnswer(found.answer, null);
    }
  }

  leadership(): number {
    return this.#store.leadership;
  }

  unconfirmed(now: number, max: number): readonly RunningLease[] {
    const { leadership, settings } = this.#store;
    const found: RunningLease[] = [];
    for (const row of this.#saving(() => this.#execution.sweeps.leases())) {
      if (found.length >= max) break;
      if (
        isUnconfirmed(this.#execution.takeovers, leadership, row.confirmed, now, settings.lease)
      ) {
        found.push(toRunningLease(row));
      }
    }
    return found;
  }

  nextDueAt(): number | null {
    return this.#saving(() => this.#store.nextDueAt());
  }

  nextPurgeAt(): number | null {
    return this.#execution.sweeps.nextPurgeAt();
  }

  clearing(): boolean {
    return this.#store.clearing;
  }

  /** T9: the rolling hash as of `index`; null when that is too old, or not applied yet. */
  chainAt(index: number): string | null {
    return this.#chainHistory.at(index);
  }

  /** T9: SHA-256 over the logical rows, hex; equal on members at an equal applied index. Reads every row. */
  hash(): string {
    this.flush();
    return logicalHash(this.#db);
  }
}

function refusal(code: "idempotency-mismatch" | "idempotency-full"): Judged {
  const refused = { ok: false, code } as const;
  return { answer: refused, stored: refused };
}

/** The proposer checked the command's shape; only what would be skipped in silence is checked here. */
function asCommand(request: LoggedRequest): Command {
  const command: unknown = decodeCommand(request.command);
  if (typeof command === "object" && command !== null && "type" in command) {
    return command as Command;
  }
  throw new FatalError("a log entry holds a command without a type");
}

function toAttempt(row: AttemptRow): Attempt {
  return {
    attempt: row.attempt,
    fence: row.fence,
    worker: row.worker,
    started_at: row.started_at,
    finished_at: row.finished_at,
    outcome: row.outcome as AttemptOutcome,
    error: row.error === null ? null : (JSON.parse(row.error) as TaskError),
  };
}

function runningAttempt(row: TaskRow): Attempt {
  return {
    attempt: row.attempt,
    fence: row.fence ?? 0,
    worker: row.worker ?? "",
    started_at: row.started_at ?? 0,
    finished_at: null,
    outcome: "running",
    error: null,
  };
}
