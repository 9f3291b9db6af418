/**
 * Cores played by hand, with nothing but what `src/raft/index.ts` gives to anybody: messages are delivered or lost one
 * by one, a disk may hold its writes back. A stranger to this project would write it like this, after docs/raft.md.
 */
import * as raft from "../../src/raft/index.ts";

export interface Start {
  /** Behind the founding entry. */
  readonly entries?: readonly raft.Entry[];
  readonly hardState?: raft.HardState;
}

interface Write {
  readonly op: raft.PersistOp;
  /** May leave when it is durable. */
  readonly after: raft.Message[];
}

export const hardState = (term: number, vote: string | null): raft.HardState => ({
  term: raft.asTerm(term),
  vote: vote === null ? null : raft.asNodeId(vote),
});

export const command = (index: number, term: number): raft.Entry => ({
  index: raft.asIndex(index),
  term: raft.asTerm(term),
  kind: "command",
  data: new Uint8Array([index]),
});

export class ByHand {
  readonly cores = new Map<string, raft.Raft>();
  readonly #writes = new Map<string, Write[]>();
  /** On their way, oldest first. */
  network: raft.Message[] = [];
  /** True: the message is lost. */
  loses: (message: raft.Message) => boolean = () => false;
  /** Members whose disks do not answer. */
  readonly held = new Set<string>();
  readonly offers: { readonly to: string; readonly snapshot: raft.SnapshotMeta }[] = [];

  /** Members of a founded cluster, in term 1 but for what `starts` says. */
  constructor(
    voters: string,
    { learners = "", starts = {} }: { learners?: string; starts?: Record<string, Start> } = {},
  ) {
    const founding = raft.foundingEntry(
      voters.split("").map(raft.asNodeId),
      learners.split("").map(raft.asNodeId),
    );
    for (const id of voters + learners) {
      const { entries = [], ...given } = starts[id] ?? {};
      this.add(id, raft.recoveredState({ entries: [founding, ...entries], ...given }));
    }
  }

  add(id: string, recovered: raft.RecoveredState): void {
    const options = {
      ...raft.DEFAULT_LIMITS,
      id: raft.asNodeId(id),
      heartbeatTicks: 1,
      electionTicks: 10,
      stallTicks: 20,
      drawElectionTicks: () => 10,
    };
    this.cores.set(id, new raft.Raft(options, recovered));
    this.#writes.set(id, []);
  }

  core(id: string): raft.Raft {
    const core = this.cores.get(id);
    if (core === undefined) throw new Error(`no ${id}`);
    return core;
  }

  /** The oldest write of a member's disk is durable. */
  persist(id: string): boolean {
    const write = this.#writes.get(id)?.shift();
    if (write === undefined) return false;
    this.core(id).persisted(raft.ackOf(write.op));
    this.network.push(...write.after);
    this.#carryOut(id);
    return true;
  }

  #carryOut(id: string): void {
    const core = this.core(id);
    const writes = this.#writes.get(id) ?? [];
    for (let todo = core.takeEffects(); todo !== null; todo = core.takeEffects()) {
      this.network.push(...todo.messages);
      if (todo.persist !== null) writes.push({ op: todo.persist, after: [] });
      (writes.at(-1)?.after ?? this.network).push(...todo.afterPersist);
      if (todo.install !== null) this.offers.push({ to: id, snapshot: todo.install.snapshot });
      if (todo.applicable !== null) core.applied(todo.applicable);
    }
    if (!this.held.has(id)) while (this.persist(id));
  }

  /** Delivers until nothing is on its way, but for what is lost. */
  settle(): void {
    for (const id of this.cores.keys()) this.#carryOut(id);
    for (
      let message = this.network.shift();
      message !== undefined;
      message = this.network.shift()
    ) {
      if (this.loses(message)) continue;
      this.cores.get(message.to)?.step(message);
      if (this.cores.has(message.to)) this.#carryOut(message.to);
    }
  }

  campaign(id: string, options?: { readonly disregardLeader: boolean }): void {
    this.core(id).campaign(options);
    this.settle();
  }

  tick(id: string, times = 1): void {
    for (let i = 0; i < times; i++) {
      this.core(id).tick();
      this.settle();
    }
  }

  propose(id: string, text: string): void {
    this.core(id).propose([{ kind: "command", data: new TextEncoder().encode(text) }]);
    this.settle();
  }

  /** "leader 2 1 | 1 2 2 | 3 3": role, term and vote, the log's terms (- is compacted), commit and applied. */
  status(id: string): string {
    const core = this.core(id);
    const terms = Array.from(
      { length: core.lastIndex },
      (_, i) => core.termAt(raft.asIndex(i + 1)) ?? "-",
    );
    return `${core.role} ${core.term} ${core.vote} | ${terms.join(" ")} | ${core.commit} ${core.appliedIndex}`;
  }

  statuses(): readonly string[] {
    return [...this.cores.keys()].map((id) => this.status(id));
  }
}
