/**
 * Carrying out one command: which parts it needs, and its answer. Whether it is due at all (a repeat, an
 * idempotency key) was decided before.
 */
import type { Database, Statement } from "bun:sqlite";
import { FatalError } from "../replica/ports.ts";
import { type ClaimRecord, type Outcome, plain } from "./answers.ts";
import { takeReady } from "./claiming.ts";
import { ClaimMemory } from "./claims.ts";
import type { Answer, Command } from "./commands.ts";
import type { IdempotencyKeys } from "./idempotency.ts";
import { rememberTakeover, type Takeover } from "./leaderships.ts";
import { NamedNames } from "./names.ts";
import { Reports } from "./reports.ts";
import { RUNNING, statusCode, toClaimedTask } from "./rows.ts";
import { LOG_TAIL_SINCE, mergeSettings } from "./settings.ts";
import type { TaskStore } from "./store.ts";
import { submitTasks } from "./submitting.ts";
import { Sweeps } from "./sweeps.ts";
import {
  cancelTask,
  endLease,
  expireLease,
  leased,
  releaseByBoot,
  retryTask,
  timeOut,
} from "./transitions.ts";
import type { Claim, ClaimedTask, Settings, Status } from "./types.ts";

type LeaderCommand = Extract<Command, { readonly term: number }>;

export class Execution {
  readonly store: TaskStore;
  readonly claims: ClaimMemory;
  readonly named: NamedNames;
  readonly reports: Reports;
  readonly sweeps: Sweeps;
  /** The newest takeovers, oldest first; see leaderships.ts. */
  takeovers: readonly Takeover[];
  readonly #saveSettings: Statement<unknown, [string]>;
  readonly #saveTakeovers: Statement<unknown, [string]>;
  readonly #saveVersion: Statement<unknown, [number]>;
  readonly #newestVersion: number;

  /** `newestVersion`: of machine versions that this build applies; `namesMax`: see names.ts. */
  constructor(
    db: Database,
    store: TaskStore,
    keys: IdempotencyKeys,
    takeovers: readonly Takeover[],
    newestVersion: number,
    namesMax?: number,
  ) {
    this.#newestVersion = newestVersion;
    this.store = store;
    this.takeovers = takeovers;
    this.claims = new ClaimMemory(db);
    this.named = new NamedNames(db, namesMax);
    this.reports = new Reports(db);
    this.sweeps = new Sweeps(store, keys, this.claims);
    this.#saveSettings = db.prepare("UPDATE state SET settings = ?");
    this.#saveTakeovers = db.prepare("UPDATE state SET takeovers = ?");
    this.#saveVersion = db.prepare("UPDATE state SET machine_version = ?");
  }

  /** @throws FatalError for a command that this build does not know */
  execute(command: Command): Outcome {
    if ("term" in command) {
      const { term } = this.store.moment;
      return plain(
        command.term === term ? this.#executeLeader(command) : { ok: false, code: "void" },
      );
    }
    switch (command.type) {
      case "submit":
        return plain(submitTasks(this.store, command.tasks, (id) => this.store.isBuried(id)));
      case "cancel":
        return plain(this.#byTask(cancelTask(this.store, command.id), "cancelled", command.id));
      case "retry": {
        const said = retryTask(this.store, command.id, command.if_version);
        return plain(this.#byTask(said, "retried", command.id));
      }
      case "clear":
        return plain(this.#clear(command.status));
      case "settings":
        this.changeSettings(
          mergeSettings(this.store.settings, command.settings, this.store.machineVersion),
        );
        return plain({
          ok: true,
          value: { type: "settings", settings: this.store.settings },
        });
      case "claim":
        return this.#claim(command);
      case "end": {
        const { worker_id, principal } = command;
        const items = command.items.map((item) =>
          endLease(this.store, worker_id, principal, item, item.end),
        );
        return plain({ ok: true, value: { type: "ended", items } });
      }
      case "report": {
        const { worker_id, principal } = command;
        const items = command.items.map((item) => {
          const row = this.store.slimById(item.task_id);
          const said = this.reports.report(this.store, row, worker_id, principal, item);
          if (said === "ok") {
            const { task_id: id } = item;
            this.store.signals.push({ type: "changed", id, from: "Running", to: "Running" });
          }
          return said;
        });
        return plain({ ok: true, value: { type: "ended", items } });
      }
      case "remember":
        return plain({ ok: true, value: { type: "remembered", answer: command.answer } });
      case "boot":
        return plain(this.#boot(command));
      default:
        throw unknownCommand(command);
    }
  }

  #executeLeader(command: LeaderCommand): Answer {
    switch (command.type) {
      case "takeover": {
        const leadership = ++this.store.leadership;
        this.takeovers = rememberTakeover(this.takeovers, [leadership, this.store.moment.now]);
        this.#saveTakeovers.run(JSON.stringify(this.takeovers));
        return done(leadership, false);
      }
      case "raise": {
        const higher = command.version > this.store.machineVersion;
        if (higher) this.#raise(command.version);
        return done(higher ? 1 : 0, false);
      }
      case "confirm": {
        let count = 0;
        for (const ref of command.items) {
          const row = leased(this.store, ref);
          if (row === null) continue;
          this.store.confirm(row);
          count++;
        }
        return done(count, false);
      }
      case "expire": {
        let count = 0;
        for (const ref of command.items) if (expireLease(this.store, ref, ref.seen)) count++;
        return done(count, false);
      }
      case "timeout": {
        let count = 0;
        for (const ref of command.items) if (timeOut(this.store, ref)) count++;
        return done(count, false);
      }
      case "due": {
        const step = this.sweeps.due(command.max);
        return done(step.count, step.more);
      }
      case "clear-step": {
        const step = this.sweeps.clearStep(command.max);
        return done(step.count, step.more);
      }
      case "purge": {
        const step = this.sweeps.purge(command.max);
        return done(step.count, step.more);
      }
      default:
        throw unknownCommand(command);
    }
  }

  #byTask(
    said: "ok" | "not-found" | "already-final" | "not-final" | "version-mismatch",
    type: "cancelled" | "retried",
    id: string,
  ): Answer {
    return said === "ok" ? { ok: true, value: { type, id } } : { ok: false, code: said, id };
  }

  #clear(status: Status | null): Answer {
    const cleared = this.sweeps.clear(status === null ? null : statusCode(status));
    if (cleared > 0) this.store.signals.push({ type: "cleared", status });
    return { ok: true, value: { type: "cleared", cleared } };
  }

  #claim(claim: Claim): Outcome {
    const earlier = this.claims.find(claim);
    if (earlier !== null) {
      const tasks = this.stillLeased(earlier);
      return { answer: { ok: true, value: { type: "claimed", tasks } }, claim: earlier };
    }
    if (claim.names !== null && !this.named.add(claim.names)) {
      return plain({
        ok: false,
        code: "names-full",
        detail: `the cluster knows ${this.named.all().size} handler names already`,
      });
    }
    const rows = takeReady(this.store, claim, this.named.all());
    const tasks: ClaimedTask[] = [];
    for (const row of rows) {
      const task = toClaimedTask(row, this.store.settings.lease);
      if (task === null) continue;
      tasks.push(task);
      this.store.signals.push({ type: "claimed", task, claim });
    }
    const first = rows[0]?.fence ?? null;
    if (first === null) return plain({ ok: true, value: { type: "claimed", tasks } });
    const record: ClaimRecord = { first, seqs: rows.map((row) => row.seq) };
    this.claims.keep(claim, this.store.moment.now, record);
    return { answer: { ok: true, value: { type: "claimed", tasks } }, claim: record };
  }

  #boot(command: Extract<Command, { readonly type: "boot" }>): Answer {
    let count = 0;
    for (const row of this.sweeps.leases()) {
      if (row.member !== command.member || row.boot === null || row.boot >= command.boot) continue;
      releaseByBoot(this.store, row);
      count++;
    }
    if (this.named.add(command.names)) return done(count, false);
    return {
      ok: false,
      code: "names-full",
      detail: `${this.named.all().size} handler names are known, ${command.names.length} more do not fit`,
    };
  }

  /** @throws FatalError when this build does not know it: nothing may be applied after it */
  useVersion(version: number): void {
    if (version > this.#newestVersion) {
      throw new FatalError(
        `the cluster was raised to machine version ${version}, this build applies ${this.#newestVersion} at most: start this member with the build of the others`,
      );
    }
    this.store.machineVersion = version;
    this.#saveVersion.run(version);
  }

  #raise(version: number): void {
    const before = this.store.machineVersion;
    this.useVersion(version);
    if (before < LOG_TAIL_SINCE && version >= LOG_TAIL_SINCE)
      this.changeSettings(mergeSettings(this.store.settings, {}, version));
  }

  changeSettings(settings: Settings): void {
    this.store.settings = settings;
    const text = JSON.stringify(settings);
    this.#saveSettings.run(text);
    this.store.chain.mixText(text);
    this.store.signals.push({ type: "settings", settings });
  }

  /** The tasks of a claim that are still leased under it. */
  stillLeased({ first, seqs }: ClaimRecord): ClaimedTask[] {
    const tasks: ClaimedTask[] = [];
    for (const [i, seq] of seqs.entries()) {
      const row = this.store.bySeq(seq);
      if (row === null || row.status !== RUNNING || row.fence !== first + i) continue;
      const task = toClaimedTask(row, this.store.settings.lease);
      if (task !== null) tasks.push(task);
    }
    return tasks;
  }
}

const done = (count: number, more: boolean): Answer => ({
  ok: true,
  value: { type: "done", count, more },
});

function unknownCommand(command: never): FatalError {
  const { type } = command as { type: unknown };
  return new FatalError(
    `a log entry holds a command "${String(type)}" that this build does not know: start a newer build`,
  );
}
