/**
 * Which member to ask: the one that answered last, until it does not answer; and the difference between the
 * cluster's clock and this one. A preference only: any member answers any request.
 */

const COOL_MIN_MS = 50;
const COOL_MAX_MS = 2_000;
/** The Date header has whole seconds and the way takes time: less than this is no difference. */
const CLOCK_TOLERANCE_MS = 2_000;

export interface Member {
  /** Without a slash at the end. */
  readonly url: string;
  /** Unreachable; not asked before, unless all the others are no better. Monotonic ms. */
  coolUntil: number;
  failures: number;
}

export class Members {
  readonly all: readonly Member[];
  #preferred = 0;
  #clockOffsetMs = 0;

  /** @throws TypeError unless `urls` are http(s) URLs, one at least. */
  constructor(urls: string | readonly string[]) {
    const given = (typeof urls === "string" ? urls.split(",") : urls).map((url) => url.trim());
    if (given.length === 0 || given.includes(""))
      throw new TypeError("urls: at least one member's URL is needed, and none may be empty");
    this.all = [...new Set(given.map(normal))].map((url) => ({ url, coolUntil: 0, failures: 0 }));
  }

  /**
   * Whom to ask next. `notBefore`: what this request was told by members to wait for (Retry-After), monotonic ms.
   * `waitMs` is 0 when there is somebody to ask at once.
   */
  pick(now: number, notBefore: ReadonlyMap<Member, number>): { member: Member; waitMs: number } {
    let best: { member: Member; at: number } | null = null;
    for (let i = 0; i < this.all.length; i++) {
      const member = this.all[(this.#preferred + i) % this.all.length];
      if (member === undefined) break;
      const at = Math.max(member.coolUntil, notBefore.get(member) ?? 0);
      if (at <= now) return { member, waitMs: 0 };
      if (best === null || at < best.at) best = { member, at };
    }
    if (best === null) throw new Error("a client without members");
    return { member: best.member, waitMs: best.at - now };
  }

  answered(member: Member): void {
    member.failures = 0;
    member.coolUntil = 0;
  }

  /** It was asked and did good: the next request goes there too. */
  prefer(member: Member): void {
    this.#preferred = this.all.indexOf(member);
  }

  /** The connection failed, or no answer came. */
  unreachable(member: Member, now: number): void {
    member.failures += 1;
    const coolMs = Math.min(COOL_MAX_MS, COOL_MIN_MS * 2 ** Math.min(member.failures - 1, 10));
    member.coolUntil = now + coolMs * (0.5 + Math.random() / 2);
    this.leave(member);
  }

  /** Ask somebody else from now on; whoever succeeds is preferred again. */
  leave(member: Member): void {
    const at = this.all.indexOf(member);
    if (this.#preferred === at) this.#preferred = (at + 1) % this.all.length;
  }

  /** Epoch ms as the members see it. */
  clusterNow(): number {
    return Date.now() + this.#clockOffsetMs;
  }

  /** @returns true when the clocks were found to differ by something else than what was known. */
  learnClock(dateHeader: string | null): boolean {
    const theirs = dateHeader === null ? Number.NaN : Date.parse(dateHeader);
    if (!Number.isFinite(theirs)) return false;
    // Half a second on: the header is cut down to whole seconds.
    const differenceMs = theirs + 500 - Date.now();
    if (Math.abs(differenceMs - this.#clockOffsetMs) <= CLOCK_TOLERANCE_MS) return false;
    this.#clockOffsetMs = Math.abs(differenceMs) <= CLOCK_TOLERANCE_MS ? 0 : differenceMs;
    return true;
  }
}

function normal(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new TypeError(`urls: ${JSON.stringify(text)} is not a URL`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw new TypeError(`urls: ${JSON.stringify(text)} is neither http nor https`);
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "")
    throw new TypeError(`urls: ${JSON.stringify(text)} may have an address and a path only`);
  return url.href.replace(/\/+$/, "");
}
