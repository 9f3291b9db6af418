/**
 * The furthest that each member was ever seen (docs/membership.md): how often its process was started, how far its log
 * had acknowledged what is committed, and the term that it had on disk. None of these goes back on a folder
 * that is whole. A member that shows less has an old copy of its folder, and has forgotten entries or votes
 * that the others count on: it must not take part. Nor must one that shows a start which another process made: under
 * its number commands were given that it knows nothing of, and it would be answered for them.
 *
 * Told by the leader to all with every beat, and kept on each member's disk now and then: at once when a folder
 * or a start is new, else at most every half minute. So it may be some entries behind after a stop of all.
 */
import {
  asIndex,
  asTerm,
  INDEX_0,
  type LogIndex,
  type NodeId,
  TERM_0,
  type Term,
} from "../raft/types.ts";
import type { Millis, PeerHello, SeenStore } from "./ports.ts";

/** Between two times that mere progress is kept on the disk. */
const KEEP_MS: Millis = 30_000;
/** Members remembered; more than a cluster has. */
const SIGHTINGS_MAX = 256;

export interface Sighting {
  readonly incarnation: string;
  readonly boot: number;
  /** Of that process; absent: nobody has heard it say so. */
  readonly startedAt?: Millis | undefined;
  /** Committed, and acknowledged as durable. */
  readonly index: LogIndex;
  readonly term: Term;
}

export class Sightings {
  readonly #seen = new Map<NodeId, Sighting>();
  readonly #store: SeenStore | null;
  #keptAt: Millis = Number.NEGATIVE_INFINITY;
  /** Since it was kept last: nothing, how far somebody is, or somebody's folder or start. */
  #unkept: "nothing" | "progress" | "start" = "nothing";
  #changes = 0;

  constructor(store: SeenStore | null = null) {
    this.#store = store;
    this.heard(store?.load() ?? null);
    this.#unkept = "nothing";
  }

  /** On every tick; `ending`: the last time. */
  keep(now: Millis, ending = false): void {
    if (this.#store === null || this.#unkept === "nothing") return;
    if (!ending && this.#unkept === "progress" && now - this.#keptAt < KEEP_MS) return;
    this.#unkept = "nothing";
    this.#keptAt = now;
    this.#store.keep(this.toList());
  }

  saw(id: NodeId, sighting: Sighting): void {
    const known = this.#seen.get(id);
    const same = known?.incarnation === sighting.incarnation ? known : null;
    if (known === undefined && this.#seen.size >= SIGHTINGS_MAX) return;
    const { incarnation } = sighting;
    const boot = Math.max(same?.boot ?? 0, sighting.boot);
    const index = asIndex(Math.max(same?.index ?? INDEX_0, sighting.index));
    const term = asTerm(Math.max(same?.term ?? TERM_0, sighting.term));
    const said = sighting.boot === boot ? sighting.startedAt : undefined;
    const startedAt = same?.boot === boot ? (same.startedAt ?? said) : said;
    const isKnown = same?.boot === boot && same.startedAt === startedAt;
    if (isKnown && same.index === index && same.term === term) return;
    this.#changes += 1;
    if (!isKnown) this.#unkept = "start";
    else if (this.#unkept === "nothing" && (same.index !== index || same.term !== term))
      this.#unkept = "progress";
    this.#seen.set(id, { incarnation, boot, startedAt, index, term });
  }

  /** Of all that were seen. */
  ids(): readonly NodeId[] {
    return [...this.#seen.keys()];
  }

  /**
   * Who acknowledged an entry from `index` on, or nothing yet that was kept. Not those of the cluster out of which this one
   * was rescued: what they acknowledged lies before its beginning.
   */
  idsSince(since: LogIndex): readonly NodeId[] {
    return [...this.#seen]
      .filter(([, { index }]) => index === INDEX_0 || index >= since)
      .map(([id]) => id);
  }

  forget(id: NodeId): void {
    if (!this.#seen.delete(id)) return;
    this.#changes += 1;
    this.#unkept = "start";
  }

  /** A sentence when `hello` shows less than was seen of that folder; else null. */
  refusal(hello: PeerHello): string | null {
    const known = this.#seen.get(hello.id);
    if (known?.incarnation !== hello.incarnation) return null;
    const { boot, index, term, startedAt } = known;
    if (hello.boot === boot && (hello.startedAt ?? startedAt) !== (startedAt ?? hello.startedAt))
      return `the data folder of ${hello.id} is an older copy of itself: it shows start ${boot} of it, which was another process's. Start the member once more, if the copy is of a moment ago; else remove it, and add it again with an empty folder`;
    const less =
      hello.boot < boot
        ? `start ${hello.boot} of it, after start ${boot} was seen`
        : hello.lastIndex < index
          ? `a log that ends at ${hello.lastIndex}, after it had acknowledged ${index}`
          : hello.term !== undefined && hello.term < term
            ? `term ${hello.term}, after it had kept term ${term}`
            : null;
    if (less === null) return null;
    return `the data folder of ${hello.id} is an older copy of itself: it shows ${less}. Remove the member, and add it again with an empty folder`;
  }

  /** Grows with every change in this process. */
  get changes(): number {
    return this.#changes;
  }

  /** For the wire. */
  toList(): readonly (readonly [NodeId, string, number, number, number, ...Millis[]])[] {
    return [...this.#seen].map(([id, { incarnation, boot, index, term, startedAt }]) => [
      id,
      incarnation,
      boot,
      index,
      term,
      ...(startedAt === undefined ? [] : [startedAt]),
    ]);
  }

  /** What another member has seen; anything malformed is skipped. */
  heard(list: unknown): void {
    if (!Array.isArray(list)) return;
    for (const item of list.slice(0, SIGHTINGS_MAX) as readonly unknown[]) {
      if (!Array.isArray(item)) continue;
      const [id, incarnation, boot, index, term, began] = item as readonly unknown[];
      if (typeof id !== "string" || typeof incarnation !== "string") continue;
      if (!isCount(boot) || !isCount(index) || !isCount(term)) continue;
      const startedAt = isCount(began) ? began : undefined;
      const sighting = { incarnation, boot, startedAt, index: asIndex(index), term: asTerm(term) };
      this.saw(id as NodeId, sighting);
    }
  }
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
