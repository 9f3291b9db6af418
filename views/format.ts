/**
 * Values to text for the pages: times, durations, counts, JSON. Nothing here is markup: what it returns
 * still has to be escaped where it is printed.
 */

/** `2026-01-31 08:00:00` in UTC; times are epoch milliseconds. */
export function formatTime(at: number): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "invalid time";
  return date.toISOString().slice(0, 19).replace("T", " ");
}

/** For `<time datetime>` and titles. */
export function isoTime(at: number): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

/** `340 ms`, `12 s`, `5 min`, `3 min 20 s`, `4 h 10 min`, `2 d 3 h`. */
export function formatDuration(durationMs: number): string {
  const ms = Math.max(0, Math.round(durationMs));
  if (ms < 1_000) return `${ms} ms`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 10) return `${(ms / 1_000).toFixed(1)} s`;
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return twoParts(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return twoParts(hours, "h", minutes % 60, "min");
  return twoParts(Math.floor(hours / 24), "d", hours % 24, "h");
}

function twoParts(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

/** Coarse on purpose, so that a live page does not change more often than it says something new. */
export function formatAge(at: number, now: number): string {
  const ms = now - at;
  if (ms < -1_000) return `in ${coarse(-ms)}`;
  if (ms < 5_000) return "just now";
  return `${coarse(ms)} ago`;
}

function coarse(ms: number): string {
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return `${seconds - (seconds % 5)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

/** `1,234,567`, the same in every locale. */
export function formatCount(count: number): string {
  return String(Math.trunc(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** The last block of a UUID: short enough for a table, long enough to tell rows apart. */
export function shortId(id: string): string {
  return id.length > 12 ? `…${id.slice(-12)}` : id;
}

/**
 * Lays JSON text out over lines without parsing its values, so that `1.0`, `1e400` and large integers
 * stay what was sent. Text that is not JSON comes back as it is, with other line breaks at worst.
 */
export function indentJson(text: string): string {
  const out: string[] = [];
  let depth = 0;
  let at = 0;
  const breakLine = () => out.push(`\n${"  ".repeat(Math.min(depth, 64))}`);
  while (at < text.length) {
    const char = text[at] ?? "";
    if (char === '"') {
      const end = stringEnd(text, at);
      out.push(text.slice(at, end));
      at = end;
      continue;
    }
    at += 1;
    if (char === " " || char === "\n" || char === "\t" || char === "\r") continue;
    if (char === "{" || char === "[") {
      const close = nextVisible(text, at);
      if (text[close] === (char === "{" ? "}" : "]")) {
        out.push(text.slice(at - 1, at), text[close] ?? "");
        at = close + 1;
        continue;
      }
      depth += 1;
      out.push(char);
      breakLine();
    } else if (char === "}" || char === "]") {
      depth = Math.max(0, depth - 1);
      breakLine();
      out.push(char);
    } else if (char === ",") {
      out.push(char);
      breakLine();
    } else {
      out.push(char === ":" ? ": " : char);
    }
  }
  return out.join("");
}

function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}

function nextVisible(text: string, start: number): number {
  let at = start;
  while (at < text.length && /\s/.test(text[at] ?? "")) at += 1;
  return at;
}

/** The first `limit` characters, never half of a surrogate pair. */
export function cutText(text: string, limit: number): { text: string; cut: boolean } {
  if (text.length <= limit) return { text, cut: false };
  const last = text.charCodeAt(limit - 1);
  const end = last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit;
  return { text: text.slice(0, end), cut: true };
}
