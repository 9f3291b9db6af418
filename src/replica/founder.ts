/**
 * Carries out the birth of a cluster for one member: looks at what the peers said (`founding.ts` judges),
 * writes entry 1, and tells empty peers of it until they show that they have it. Also judges who may connect
 * before there is a log.
 */
import { asIndex, asTerm, type Entry, type NodeId } from "../raft/types.ts";
import type { ClockWatch } from "./clock-watch.ts";
import { decodeBootstrap, encodeBootstrap } from "./envelope.ts";
import { firstConfiguration, foundingRecord, foundingStep, names } from "./founding.ts";
import type {
  BootstrapRecord,
  Clock,
  Identity,
  Log,
  LogStore,
  PeerFrame,
  PeerHello,
  Random,
  RecoveredLog,
} from "./ports.ts";

export interface FounderPort {
  readonly identity: Identity;
  readonly recovered: RecoveredLog;
  /** `--peers`, own id included; empty: a cluster of one. */
  readonly peers: ReadonlyMap<NodeId, string>;
  /** `--join`: it founds nothing, and waits to be let in. */
  readonly join: string | null;
  readonly advertise: string;
  readonly settings: unknown;
  /** Highest one that this build applies. */
  readonly machineVersion: number;
  readonly store: LogStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly clockWatch: ClockWatch;
  /** What each connected peer said of itself. */
  readonly hellos: ReadonlyMap<NodeId, PeerHello>;
  send(to: NodeId, frame: PeerFrame): boolean;
  /** Entry 1 is durable: the core can start on this log. */
  founded(log: RecoveredLog): void;
  fatal(error: unknown): void;
}

export class Founder {
  readonly #port: FounderPort;
  #record: BootstrapRecord | null = null;
  #waiting: string | null = null;
  #adopting = false;
  #stopped = false;

  constructor(port: FounderPort) {
    this.#port = port;
    const { configurations, foundations = [] } = port.recovered;
    const first = [...foundations, ...configurations].find(({ kind }) => kind === "bootstrap");
    if (first !== undefined) this.#record = decodeBootstrap(first).record;
    const origin = this.#record?.origin;
    if (origin !== undefined)
      port.log.info(`this cluster began with a ${origin.kind}`, {
        of: origin.clusterId,
        index: origin.index,
        note: origin.note,
      });
  }

  /** Entry 1's record, once there is one. */
  get record(): BootstrapRecord | null {
    return this.#record;
  }

  get clusterId(): string | null {
    return this.#record?.clusterId ?? this.#port.identity.clusterId;
  }

  /** Why there is no cluster yet, for people; null once there is one. */
  get waiting(): string | null {
    return this.#waiting;
  }

  /** Sorted ids of `--peers`. */
  get peerIds(): NodeId[] {
    return [...this.#port.peers.keys()].sort();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** Takes the next step towards entry 1, as far as what the peers said allows; later, helps them to it. */
  step(): void {
    if (this.#record !== null) this.#spread(this.#record);
    else if (!this.#adopting && !this.#stopped) this.#stepTowardsEntry1();
  }

  /** An initialised peer has sent its record. Adopted only by an empty log, and only if it names this folder. */
  heardRecord(record: BootstrapRecord): void {
    if (this.#record !== null || this.#adopting || this.#stopped) return;
    if (typeof record.clusterId === "string" && names(record, this.#port.identity)) {
      this.#adopt(record);
    }
  }

  /** A snapshot was installed: the cluster that it comes from is this member's. */
  installed(record: BootstrapRecord): void {
    this.#record ??= record;
    this.#waiting = null;
  }

  /** A sentence refuses the connection. Asked only while there is no log. */
  admit(hello: PeerHello): string | null {
    if (hello.clusterId !== null || this.#port.peers.has(hello.id)) return null;
    return `${this.#port.identity.id} does not know ${hello.id}: it is not in its --peers`;
  }

  #stepTowardsEntry1(): void {
    const { identity, peers, hellos, join } = this.#port;
    const peerIds = peers.size === 0 ? [identity.id] : this.peerIds;
    const step = foundingStep(identity, peerIds, hellos, join);
    switch (step.do) {
      case "wait":
        this.#wait(step.reason);
        return;
      case "adopt":
        this.#adopt(step.record);
        return;
      case "found":
        this.#found();
        return;
    }
  }

  #wait(reason: string): void {
    if (this.#waiting !== reason) this.#port.log.info(reason);
    this.#waiting = reason;
  }

  #found(): void {
    const { identity, advertise, settings, machineVersion, random, clockWatch, hellos } =
      this.#port;
    // The record begins log time, which never goes back: a wrong clock of this member must not be it.
    const unknown = [...hellos.keys()].filter((peer) => !clockWatch.knows(peer));
    if (unknown.length > 0) {
      this.#wait(`waiting for the wall clock of ${unknown.join(", ")}`);
      return;
    }
    const now = clockWatch.medianWall();
    const { id, incarnation } = identity;
    const self = { id, incarnation, url: advertise, machineVersion };
    this.#adopt(foundingRecord(random.uuid(now), now, self, hellos, settings));
  }

  /** Writes entry 1. The log is empty. */
  #adopt(record: BootstrapRecord): void {
    const { store, log, recovered, identity } = this.#port;
    this.#adopting = true;
    const index = asIndex(1);
    const term = asTerm(1);
    const data = encodeBootstrap(firstConfiguration(record), record);
    const entry: Entry = { term, index, kind: "bootstrap", data };
    // One whose log was lost up to here, and not its term and vote, must not go back behind them.
    const lost = recovered.hardState.term >= term;
    const hardState = lost ? recovered.hardState : { term, vote: null };
    const bind = async (): Promise<void> => {
      await store.bindCluster(record.clusterId);
      this.#record = record;
      this.#waiting = null;
      log.info(names(record, identity) ? "cluster founded" : "joined the cluster", {
        cluster: record.clusterId,
        members: record.members.map(({ id }) => id),
      });
      const terms = [{ index, term }];
      const grown = { hardState, lastIndex: index, terms, configurations: [entry], tail: [entry] };
      this.#port.founded({ ...recovered, ...grown });
      this.#spread(record);
    };
    store.append({ hardState: lost ? null : hardState, entries: [entry] }, () => {
      bind().catch((error: unknown) => this.#port.fatal(error));
    });
  }

  /** Empty peers that the record names are told of it. */
  #spread(record: BootstrapRecord): void {
    for (const [peer, hello] of this.#port.hellos) {
      if (hello.clusterId !== null || !names(record, hello)) continue;
      this.#port.send(peer, { kind: "call", id: 0, method: "replica.founded", body: record });
    }
  }
}
