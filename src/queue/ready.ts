/**
 * Which queues and names have ready tasks, in memory: a claim looks here before it asks the tables, and
 * the dispatcher sees at a glance whom to serve. Rebuilt from the tables at open; a recount must agree.
 */

/** Position in the order of service: higher priority first, then who became ready first. */
export interface ReadyPosition {
  readonly priority: number;
  readonly ready_seq: number;
}

export const before = (a: ReadyPosition, b: ReadyPosition): boolean =>
  a.priority !== b.priority ? a.priority > b.priority : a.ready_seq < b.ready_seq;

/** One queue and name. `head` is its first task where known; null: ask the table. */
export interface ReadyPair {
  readonly queue: string;
  readonly name: string;
  /** Ready tasks; above 0 while the pair is listed. */
  count: number;
  head: ReadyPosition | null;
}

export class ReadyIndex {
  readonly #pairs = new Map<string, Map<string, ReadyPair>>();
  /** The same counts for readers, who must not see the heads. */
  readonly #counts = new Map<string, Map<string, number>>();

  counts(): ReadonlyMap<string, ReadonlyMap<string, number>> {
    return this.#counts;
  }

  /** Used at open: heads stay unknown until asked for. */
  load(queue: string, name: string, count: number): void {
    this.#put({ queue, name, count, head: null });
  }

  add(queue: string, name: string, position: ReadyPosition): void {
    const pair = this.#pairs.get(queue)?.get(name);
    if (pair === undefined) {
      this.#put({ queue, name, count: 1, head: position });
      return;
    }
    pair.count++;
    if (pair.head !== null && before(position, pair.head)) pair.head = position;
    this.#counts.get(queue)?.set(name, pair.count);
  }

  remove(queue: string, name: string, position: ReadyPosition): void {
    const names = this.#pairs.get(queue);
    const pair = names?.get(name);
    if (names === undefined || pair === undefined) return;
    pair.count--;
    if (pair.head !== null && pair.head.ready_seq === position.ready_seq) pair.head = null;
    const counts = this.#counts.get(queue);
    if (pair.count > 0) {
      counts?.set(name, pair.count);
      return;
    }
    names.delete(name);
    counts?.delete(name);
    if (names.size > 0) return;
    this.#pairs.delete(queue);
    this.#counts.delete(queue);
  }

  clear(): void {
    this.#pairs.clear();
    this.#counts.clear();
  }

  /** Pairs that a claim may take from. `accepts`: whether a name is asked for; null: each. */
  matching(
    queues: readonly string[] | null,
    names: readonly string[] | null,
    accepts: ((name: string) => boolean) | null,
  ): ReadyPair[] {
    const found: ReadyPair[] = [];
    for (const queue of queues === null ? this.#pairs.keys() : new Set(queues)) {
      const pairs = this.#pairs.get(queue);
      if (pairs === undefined) continue;
      if (accepts === null && names !== null) {
        for (const name of new Set(names)) {
          const pair = pairs.get(name);
          if (pair !== undefined) found.push(pair);
        }
        continue;
      }
      for (const pair of pairs.values()) {
        if (accepts === null || accepts(pair.name)) found.push(pair);
      }
    }
    return found;
  }

  #put(pair: ReadyPair): void {
    const pairs = this.#pairs.get(pair.queue);
    if (pairs === undefined) {
      this.#pairs.set(pair.queue, new Map([[pair.name, pair]]));
      this.#counts.set(pair.queue, new Map([[pair.name, pair.count]]));
      return;
    }
    pairs.set(pair.name, pair);
    this.#counts.get(pair.queue)?.set(pair.name, pair.count);
  }
}
