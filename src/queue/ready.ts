/**
 * Which tasks are ready, in memory: a claim takes from here, and the dispatcher sees at a glance whom to serve.
 *
 * Every queue, name and priority is a lane in the order of becoming ready. Of a lane only the head need be in
 * memory; a long one goes on in the table, and what became ready since the table was written last comes behind:
 *
 *     window (memory) < gap (only in the table, read in pieces when the window is used up) < tail (memory)
 *
 * Counts are exact at any moment: rebuilt from the tables at open, and a recount must agree.
 */
import { PENDING, type TaskRow } from "./rows.ts";

/** Position in the order of service: higher priority first, then who became ready first. */
interface ReadyPosition {
  readonly priority: number;
  readonly ready_seq: number | null;
}

/** Both are ready. */
export const before = (a: ReadyPosition, b: ReadyPosition): boolean =>
  a.priority !== b.priority ? a.priority > b.priority : (a.ready_seq ?? 0) < (b.ready_seq ?? 0);

/** A piece of a lane as the table has it. */
export interface LanePiece {
  /** In order; those that are elsewhere by now (in memory, not in the table) are left out. */
  readonly rows: readonly TaskRow[];
  /** Position of the last row read, left out or not. */
  readonly reached: number;
  /** There may be more behind it. */
  readonly more: boolean;
}

/** Reads the table's rows of a lane with positions above `after` and below `until`, at most `max`. */
export type ReadLane = (
  pair: ReadyPair,
  priority: number,
  after: number,
  until: number,
  max: number,
) => LanePiece;

/** Tests lower them. */
export interface ReadyLimits {
  /** Rows that the windows of all lanes together keep in memory, but for a piece each. */
  readonly rows: number;
  /** Characters of their payloads. */
  readonly text: number;
  /** Rows of a lane that are read from the table at once. */
  readonly piece: number;
}

const READY_LIMITS: ReadyLimits = { rows: 8_192, text: 8 * 1024 * 1024, piece: 256 };
/** Slots of a window that were taken before its array is compacted. */
const TAKEN_SLOTS_MAX = 512;

/** A row in a lane; stale once the row has left that position (claimed, cancelled, cleared). */
interface Place {
  readonly row: TaskRow;
  readonly ready_seq: number;
  /** Characters of payload that it counts for while it is in a window. */
  text: number;
}

class Lane {
  readonly priority: number;
  /** Ready tasks, wherever they are. */
  count = 0;
  window: Place[] = [];
  /** First one of `window` that was not taken. */
  head = 0;
  gap = false;
  tail: Place[] = [];
  /** Position of the last one that came into the window: the gap begins behind it. */
  reached: number;

  constructor(priority: number, reached: number) {
    this.priority = priority;
    this.reached = reached;
  }
}

/** One queue and name. */
export class ReadyPair {
  readonly queue: string;
  readonly name: string;
  /** Ready tasks; above 0 while the pair is listed. */
  count = 0;
  /** By priority. */
  readonly lanes: (Lane | undefined)[] = Array.from({ length: 10 });
  /** The counts of its queue, for readers. */
  readonly shown: Map<string, number>;

  constructor(queue: string, name: string, shown: Map<string, number>) {
    this.queue = queue;
    this.name = name;
    this.shown = shown;
  }
}

export class ReadyIndex {
  readonly #pairs = new Map<string, Map<string, ReadyPair>>();
  /** The same counts for readers, who must not see the rows. */
  readonly #counts = new Map<string, Map<string, number>>();
  readonly #read: ReadLane;
  readonly #limits: ReadyLimits;
  readonly #tailed = new Set<Lane>();
  #rows = 0;
  #text = 0;

  constructor(read: ReadLane, limits: ReadyLimits = READY_LIMITS) {
    this.#read = read;
    this.#limits = limits;
  }

  counts(): ReadonlyMap<string, ReadonlyMap<string, number>> {
    return this.#counts;
  }

  /** At open: so many rows of this lane are in the table, all behind the position `after`. */
  load(queue: string, name: string, priority: number, count: number, after: number): void {
    const pair = this.#pairOf(queue, name);
    const lane = new Lane(priority, after);
    lane.count = count;
    lane.gap = true;
    pair.lanes[priority] = lane;
    pair.count += count;
    pair.shown.set(name, pair.count);
  }

  /** The row has become ready, behind all that were before. */
  add(row: TaskRow): void {
    const at = row.ready_seq ?? 0;
    const pair = this.#pairOf(row.queue, row.name);
    let lane = pair.lanes[row.priority];
    if (lane === undefined) {
      lane = new Lane(row.priority, at - 1);
      pair.lanes[row.priority] = lane;
    }
    const place: Place = { row, ready_seq: at, text: 0 };
    if (!lane.gap && lane.tail.length === 0 && this.#fits(row)) {
      this.#show(lane, place);
    } else {
      lane.tail.push(place);
      this.#tailed.add(lane);
    }
    lane.count++;
    pair.count++;
    pair.shown.set(pair.name, pair.count);
  }

  /** The row is no longer ready; its own `ready_seq` may say so already, or not yet. */
  remove(row: TaskRow): void {
    const names = this.#pairs.get(row.queue);
    const pair = names?.get(row.name);
    const lane = pair?.lanes[row.priority];
    if (names === undefined || pair === undefined || lane === undefined) return;
    lane.count--;
    pair.count--;
    if (lane.count === 0) {
      this.#drop(lane);
      pair.lanes[lane.priority] = undefined;
    }
    if (pair.count > 0) {
      pair.shown.set(pair.name, pair.count);
      return;
    }
    names.delete(pair.name);
    pair.shown.delete(pair.name);
    if (names.size > 0) return;
    this.#pairs.delete(pair.queue);
    this.#counts.delete(pair.queue);
  }

  clear(): void {
    for (const names of this.#pairs.values()) {
      for (const { lanes } of names.values()) {
        for (const lane of lanes) if (lane !== undefined) this.#drop(lane);
      }
    }
    this.#pairs.clear();
    this.#counts.clear();
  }

  /** The tables hold all rows as they are: tails need not be in memory any more. */
  written(): void {
    for (const lane of this.#tailed) {
      lane.tail = [];
      lane.gap = true;
    }
    this.#tailed.clear();
  }

  /** The first task of a pair in the order of service; it stays ready. Null: none. */
  first(pair: ReadyPair): TaskRow | null {
    for (let priority = 9; priority >= 0; priority--) {
      const lane = pair.lanes[priority];
      if (lane === undefined) continue;
      const row = this.#firstOf(pair, lane);
      if (row !== null) return row;
    }
    return null;
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

  #firstOf(pair: ReadyPair, lane: Lane): TaskRow | null {
    for (;;) {
      for (
        let place = lane.window[lane.head];
        place !== undefined;
        place = lane.window[lane.head]
      ) {
        if (isValid(place)) return place.row;
        this.#hide(place);
        lane.head++;
      }
      lane.window = [];
      lane.head = 0;
      if (lane.gap) {
        this.#refill(pair, lane);
      } else if (lane.tail.length > 0) {
        for (const place of lane.tail) if (isValid(place)) this.#show(lane, place);
        lane.tail = [];
        this.#tailed.delete(lane);
      } else {
        return null;
      }
    }
  }

  /** Reads on in the table, up to where the tail begins. */
  #refill(pair: ReadyPair, lane: Lane): void {
    const until = lane.tail.find(isValid)?.ready_seq ?? Number.MAX_SAFE_INTEGER;
    const { rows, reached, more } = this.#read(
      pair,
      lane.priority,
      lane.reached,
      until,
      this.#limits.piece,
    );
    for (const row of rows) {
      if (row.ready_seq !== null) this.#show(lane, { row, ready_seq: row.ready_seq, text: 0 });
    }
    lane.reached = Math.max(lane.reached, reached);
    lane.gap = more;
  }

  #fits(row: TaskRow): boolean {
    const text = row.payload?.length ?? 0;
    return this.#rows < this.#limits.rows && this.#text + text <= this.#limits.text;
  }

  #show(lane: Lane, place: Place): void {
    const { row, ready_seq } = place;
    place.text = row.payload?.length ?? 0;
    if (lane.head >= TAKEN_SLOTS_MAX && lane.head * 2 >= lane.window.length) {
      lane.window.splice(0, lane.head);
      lane.head = 0;
    }
    lane.window.push(place);
    lane.reached = ready_seq;
    row.shown++;
    this.#rows++;
    this.#text += place.text;
  }

  #hide({ row, text }: Place): void {
    row.shown--;
    this.#rows--;
    this.#text -= text;
  }

  #drop(lane: Lane): void {
    for (let i = lane.head; i < lane.window.length; i++) {
      const place = lane.window[i];
      if (place !== undefined) this.#hide(place);
    }
    lane.window = [];
    lane.tail = [];
    this.#tailed.delete(lane);
  }

  #pairOf(queue: string, name: string): ReadyPair {
    let pairs = this.#pairs.get(queue);
    if (pairs === undefined) {
      pairs = new Map();
      this.#pairs.set(queue, pairs);
      this.#counts.set(queue, new Map());
    }
    let pair = pairs.get(name);
    if (pair === undefined) {
      pair = new ReadyPair(queue, name, this.#counts.get(queue) ?? new Map<string, number>());
      pairs.set(name, pair);
    }
    return pair;
  }
}

const isValid = ({ row, ready_seq }: Place): boolean =>
  row.ready_seq === ready_seq && row.status === PENDING;
