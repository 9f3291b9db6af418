/**
 * The Raft core of this member, and its effects carried out: writes handed to the disk, messages sent, entries read,
 * applied and told of. Inputs of one turn of the event loop are gathered first (`schedulePump`).
 */
import { decodeConfigurationEntry } from "../raft/configuration.ts";
import { DEFAULT_LIMITS } from "../raft/options.ts";
import { Raft } from "../raft/raft.ts";
import {
  asIndex,
  type Configuration,
  type Effects,
  type Entry,
  type LogIndex,
  type Message,
  type NodeId,
  type PersistAck,
} from "../raft/types.ts";
import { asError } from "./errors.ts";
import { Persistence } from "./persistence.ts";
import { FatalError, type Millis, type PeerFrame, type RecoveredLog } from "./ports.ts";
import type { ReplicaOptions } from "./replica-options.ts";
import { configurationOf } from "./snapshots.ts";

/** One logical tick of the core. */
export const TICK_MS: Millis = 10;
/** A leader's own disk may take this long, and two election timeouts, before others lead if they can. */
export const STALL_MS: Millis = 1_000;

/** What the core's effects are for, in the replica around it. */
export interface CorePort {
  readonly self: NodeId;
  readonly options: Pick<
    ReplicaOptions,
    | "clock"
    | "random"
    | "log"
    | "store"
    | "machine"
    | "heartbeatMs"
    | "electionTimeoutMs"
    | "limits"
    | "onFatal"
  >;
  send(to: NodeId, frame: PeerFrame): boolean;
  /** What was sent and handed to the disk in this turn leaves now. */
  flush(): void;
  /** A configuration that the log held when it was opened, oldest first. */
  recovered(configuration: Configuration, index: LogIndex): void;
  /** The core was made; nothing was carried out yet. */
  started(raft: Raft): void;
  /** May it stand for election now? */
  mayCampaign(raft: Raft): boolean;
  /** Makes entries of the commands that wait; nothing where this member does not lead. */
  seal(raft: Raft): void;
  /** The term that the parts around the core know of: entries are made early for that one only. */
  knownTerm(): number;
  apply(raft: Raft): void;
  readAnswered(id: number, index: LogIndex | null): void;
  reconfigured(configuration: Configuration): void;
  roleChanged(change: NonNullable<Effects["roleChange"]>): void;
  snapshots(effects: Pick<Effects, "snapshots" | "install">): void;
}

export class Core {
  readonly #port: CorePort;
  readonly #persistence: Persistence;
  /** Null until the cluster is founded. */
  #raft: Raft | null = null;
  /** A snapshot takes the place of state and log: nothing else may touch either. */
  #halted = false;
  /** Of writes that were handed over before; heard when it is over. */
  #acksHeld: PersistAck[] = [];
  #pumpScheduled = false;
  #stopped = false;

  constructor(port: CorePort) {
    this.#port = port;
    this.#persistence = new Persistence(port.options.store, (message) => this.#send(message));
    port.options.store.onFailure((error) => this.fatal(error));
  }

  get raft(): Raft | null {
    return this.#raft;
  }

  get isHalted(): boolean {
    return this.#halted;
  }

  get isStopped(): boolean {
    return this.#stopped;
  }

  get electionTicks(): number {
    return Math.max(3, Math.round(this.#port.options.electionTimeoutMs / TICK_MS));
  }

  /** @throws FatalError log and state do not belong together */
  start(recovered: RecoveredLog): void {
    const { machine, heartbeatMs, random, limits } = this.#port.options;
    const applied = machine.applied();
    if (applied.index > recovered.lastIndex || applied.index < recovered.compacted.index) {
      throw new FatalError(
        `the state is at index ${applied.index}, the log holds ${recovered.compacted.index + 1} to ${recovered.lastIndex}: the files of this folder do not belong together; remove this member and add it again`,
      );
    }
    const electionTicks = this.electionTicks;
    const raft = new Raft(
      {
        id: this.#port.self,
        heartbeatTicks: Math.max(1, Math.round(heartbeatMs / TICK_MS)),
        electionTicks,
        stallTicks: Math.max(2 * electionTicks, Math.round(STALL_MS / TICK_MS)),
        drawElectionTicks: () => Math.floor(electionTicks * (1 + random.float())),
        ...DEFAULT_LIMITS,
        ...limits,
      },
      {
        ...recovered,
        snapshotConfiguration: configurationOf(recovered.foundations ?? []),
        applied: applied.index,
        commit: asIndex(Math.min(Math.max(1, applied.index), recovered.lastIndex)),
      },
    );
    this.#raft = raft;
    const termOfApplied = raft.termAt(applied.index);
    if (applied.index > 0 && termOfApplied !== null && termOfApplied !== applied.term) {
      throw new FatalError(
        `the state was built from term ${applied.term} at index ${applied.index}, the log has term ${termOfApplied} there: the files of this folder do not belong together; remove this member and add it again`,
      );
    }
    for (const entry of [...(recovered.foundations ?? []), ...recovered.configurations])
      this.#port.recovered(decodeConfigurationEntry(entry), entry.index);
    this.#port.started(raft);
    const { voters } = raft.configuration;
    if (voters.length === 1 && voters[0] === this.#port.self && this.#port.mayCampaign(raft)) {
      raft.campaign();
    }
    this.schedulePump();
  }

  /** Nothing is carried out any more. */
  stop(): void {
    this.#stopped = true;
  }

  // ------------------------------------------------------------------ effects

  /** In this turn of the event loop, after what waits in it already. */
  schedulePump(): void {
    if (this.#pumpScheduled || this.#stopped) return;
    this.#pumpScheduled = true;
    this.#port.options.clock.soon(() => {
      this.#pumpScheduled = false;
      this.guard(() => this.pump());
    });
  }

  pump(): void {
    const raft = this.#raft;
    if (raft === null || this.#stopped || this.#halted) return;
    // What waits travels with the news of what was committed: one append a peer instead of two.
    if (this.#port.knownTerm() === raft.term) this.#port.seal(raft);
    this.#carryOut(raft);
    // Applying takes long beside them: disk and peers work meanwhile.
    this.#port.flush();
    this.#port.apply(raft);
    this.#port.seal(raft);
    this.#carryOut(raft);
  }

  #carryOut(raft: Raft): void {
    for (let effects = raft.takeEffects(); effects !== null; effects = raft.takeEffects()) {
      if (effects.persist !== null) {
        this.#persistence.write(effects.persist, (ack) => {
          // Not before it stands on the snapshot: a vote that is durable now could make this member a leader.
          if (this.#halted) this.#acksHeld.push(ack);
          else this.guard(() => raft.persisted(ack));
          if (raft.hasWork) this.schedulePump();
        });
      }
      for (const message of effects.messages) this.#send(message);
      this.#persistence.sendAfter(effects.afterPersist);
      for (const { id, index } of effects.reads) this.#port.readAnswered(id, index);
      for (const fetch of effects.fetches) this.#fetch(raft, fetch);
      if (effects.configuration !== null) this.#port.reconfigured(effects.configuration);
      if (effects.roleChange !== null) this.#port.roleChanged(effects.roleChange);
      this.#port.snapshots(effects);
    }
  }

  #send(message: Message): void {
    this.#port.send(message.to, { kind: "raft", message });
  }

  #fetch(raft: Raft, { peer, from, to, maxBytes }: Effects["fetches"][number]): void {
    this.#port.options.store.read(from, to, maxBytes).then(
      (entries: readonly Entry[]) => {
        this.guard(() => raft.fetched(peer, entries));
        this.schedulePump();
      },
      (error: unknown) => this.fatal(asError(error)),
    );
  }

  // ------------------------------------------------------------------ a snapshot in place of state and log

  /** Hands over what the core wants written, then carries out nothing until what it returns is called. */
  halt(): () => void {
    const raft = this.#raft;
    // Handed over before the log is told of the install: it would not take it afterwards.
    this.guard(() => {
      if (raft !== null) this.#carryOut(raft);
      // A transaction that is open must not outlive the file that it belongs to.
      this.#port.options.machine.flush();
    });
    this.#halted = true;
    return () => {
      this.#halted = false;
      const acks = this.#acksHeld;
      this.#acksHeld = [];
      this.guard(() => {
        for (const ack of acks) raft?.persisted(ack);
      });
      this.schedulePump();
    };
  }

  // ------------------------------------------------------------------ failure

  /** A broken invariant, an unknown entry version, a failed transaction: nothing here can go on safely. */
  guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.fatal(asError(error));
    }
  }

  fatal(error: Error): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#port.options.log.error(error.message, { stack: error.stack });
    this.#port.options.onFatal(error);
  }
}
