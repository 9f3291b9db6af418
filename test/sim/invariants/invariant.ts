/** What a rule may watch. Each rule is a file of its own; it says what broke by `Simulation.fail`. */
import type { Database } from "bun:sqlite";
import type { Answer, Signal } from "../../../src/queue/commands.ts";
import type { TaskMachine } from "../../../src/queue/machine.ts";
import type { Task } from "../../../src/queue/types.ts";
import type { LogIndex, Message, NodeId, PersistOp, Role, Term } from "../../../src/raft/types.ts";
import type { Leadership } from "../../../src/replica/consensus.ts";
import type { CommittedEntry, Millis } from "../../../src/replica/ports.ts";
import { TICK_MS } from "../../../src/replica/core.ts";
import type { Changed, Granted, LedgerTask } from "../ledger.ts";
import type { Told } from "../history.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";

/** What a core says of itself at one moment. */
export interface CoreState {
  readonly term: number;
  readonly vote: NodeId | null;
  readonly role: Role;
  readonly leader: NodeId | null;
  readonly commit: LogIndex;
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  readonly elapsedTicks: number;
  /** Answers counted in the election under way, by who gave them. */
  readonly votes: ReadonlyMap<NodeId, boolean>;
}

export interface Invariant {
  /** A member's core sent a message: it is on the wire. */
  sent?(node: SimNode, message: Message): void;
  /** A member handed a write to its disk; `node.store.handed` does not hold it yet. */
  appending?(node: SimNode, op: PersistOp): void;
  /** A write becomes durable; `node.disk` does not hold it yet. */
  writing?(node: SimNode, op: PersistOp): void;
  leadership?(node: SimNode, leadership: Leadership): void;
  /** A member applied an entry, perhaps not for the first time. */
  applied?(node: SimNode, entry: CommittedEntry, answers: readonly Answer[]): void;
  /** An entry is about to be applied for the first time anywhere. */
  applying?(node: SimNode, entry: CommittedEntry): void;
  /** An entry was applied for the first time anywhere. */
  logged?(
    entry: CommittedEntry,
    answers: readonly Answer[],
    signals: readonly Signal[],
    node: SimNode,
  ): void;
  /** A step of a task in an entry that was applied for the first time; `task`: as it was before, undefined: unknown. */
  changing?(task: LedgerTask | undefined, changed: Changed, entry: CommittedEntry): void;
  granting?(task: LedgerTask | undefined, granted: Granted, entry: CommittedEntry): void;
  /**
   * What an entry that was applied for the first time has made of a task. `known`: by the log, but what it was charged, which
   * is as of before; `task`: by this member's machine, null: gone.
   */
  became?(
    known: LedgerTask,
    task: Task | null,
    entry: CommittedEntry,
    answers: readonly Answer[],
    node: SimNode,
  ): void;
  /** A client, a worker or a pool is answered; `Simulation.history` does not hold it yet. */
  told?(told: Told): void;
  /** The cluster begins with this state: that of another one, before anything happens. */
  begins?(machine: TaskMachine, db: Database): void;
  started?(node: SimNode): void;
  /** A snapshot has replaced this member's state and log; `node.startedAt` is its index. */
  installed?(node: SimNode): void;
  /** A member's core hears a message. */
  heard?(node: SimNode, message: Message): void;
  /**
   * A member's core has heard a message, and this is what became of it, before its effects are carried out.
   * `incarnation`: of the folder on whose connection it came.
   */
  took?(
    node: SimNode,
    message: Message,
    before: CoreState,
    after: CoreState,
    incarnation: string,
  ): void;
  /** A member hears what the wall clock of `from` shows, epoch ms. */
  heardClock?(node: SimNode, from: NodeId, wall: Millis): void;
  /** A member's queue hands a command over (or the network makes a second one of it), and is told that nothing happened, or that nobody knows. */
  submitted?(node: SimNode, asked: Uint8Array): void;
  refused?(node: SimNode, asked: Uint8Array, reason: string): void;
  /** A member that is up was told what became of a command which it had submitted, with these bytes. */
  answered?(node: SimNode, asked: Uint8Array, answer: unknown): void;
  /** A leader was asked to hand leadership over, just now. */
  transferring?(node: SimNode): void;
  /** Every tenth of a second of virtual time, between two events. */
  often?(): void;
  /** Every second of virtual time, between two events. */
  marked?(): void;
  /** The run is over: everything is healed and quiet. */
  ended?(): void;
}

/** Ticks of an election timeout, as the driver counts them. */
export function electionTicks({ options }: Simulation): number {
  return Math.max(3, Math.round(options.electionTimeoutMs / TICK_MS));
}

/** Only who leads a term sends that. */
export function isWordOfLeader(type: Message["type"]): boolean {
  return type === "append" || type === "commit" || type === "heartbeat" || type === "snapshot";
}

/** By kind of event the rules that look at it: most events are looked at by few, and there are very many events. */
export type Watching = { readonly [K in keyof Invariant]-?: readonly Looking<K>[] };

type Looking<K extends keyof Invariant> = Invariant & Required<Pick<Invariant, K>>;

export function watching(rules: readonly Invariant[]): Watching {
  const those = <K extends keyof Invariant>(what: K): readonly Looking<K>[] =>
    rules.filter((rule): rule is Looking<K> => rule[what] !== undefined);
  return {
    sent: those("sent"),
    appending: those("appending"),
    writing: those("writing"),
    leadership: those("leadership"),
    applied: those("applied"),
    applying: those("applying"),
    logged: those("logged"),
    changing: those("changing"),
    granting: those("granting"),
    became: those("became"),
    told: those("told"),
    begins: those("begins"),
    started: those("started"),
    installed: those("installed"),
    heard: those("heard"),
    took: those("took"),
    heardClock: those("heardClock"),
    submitted: those("submitted"),
    refused: those("refused"),
    answered: those("answered"),
    transferring: those("transferring"),
    marked: those("marked"),
    often: those("often"),
    ended: those("ended"),
  };
}
