/** RFC 3339 date-times at the API's edge: text outside, epoch milliseconds inside. */

const RFC3339 =
  /^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))$/;

/** Epoch milliseconds; null when it is not an RFC 3339 date-time of a day that exists, from 1970 on. */
export function parseTime(text: string): number | null {
  const match = RFC3339.exec(text);
  if (match === null) return null;
  const part = (group: number): number => Number(match[group] ?? 0);
  const [month, day, hour, minute, second] = [part(2), part(3), part(4), part(5), part(6)];
  if (month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) return null;
  if (part(9) > 23 || part(10) > 59) return null;
  const midnight = new Date(Date.UTC(part(1), month - 1, day));
  // The 30th of February becomes a day of March; a year below 100 becomes 19xx.
  if (midnight.getUTCDate() !== day || midnight.getUTCFullYear() !== part(1)) return null;
  const fraction = Number((match[7] ?? "").padEnd(3, "0").slice(0, 3));
  const offset = (part(9) * 60 + part(10)) * 60_000 * (match[8] === "-" ? -1 : 1);
  const ms = midnight.getTime() + ((hour * 60 + minute) * 60 + second) * 1_000 + fraction - offset;
  return ms >= 0 ? ms : null;
}

/** What was formatted of late: the tasks of one answer share a few times, and most of their seconds. */
const seconds = new Map<number, string>();
const SECONDS_MAX = 256;
let lastMs = Number.NaN;
let lastText = "";

/** RFC 3339 in UTC with milliseconds. */
export function formatTime(epochMs: number): string {
  if (epochMs === lastMs) return lastText;
  const second = Math.floor(epochMs / 1_000);
  let text = seconds.get(second);
  if (text === undefined) {
    if (seconds.size >= SECONDS_MAX) seconds.clear();
    text = new Date(second * 1_000).toISOString().slice(0, -4);
    seconds.set(second, text);
  }
  const ms = epochMs - second * 1_000;
  lastMs = epochMs;
  lastText = `${text}${ms < 10 ? "00" : ms < 100 ? "0" : ""}${ms}Z`;
  return lastText;
}

/** As `formatTime`, keeping null. */
export function formatTimeOrNull(epochMs: number | null): string | null {
  return epochMs === null ? null : formatTime(epochMs);
}
