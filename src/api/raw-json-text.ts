/** What both readers of JSON (raw-json.ts, json-scan.ts) speak of. */

/** JSON text, exactly as sent, of one opaque value. */
export class RawJson {
  constructor(readonly text: string) {}
}

/** Where opaque members are: keys from the root, `*` for any array element. */
export type OpaquePath = readonly string[];

/** Index after the closing quote of the string that opens at `at`; the text's length when none closes it. */
export function stringEnd(text: string, at: number): number {
  for (let from = at + 1; ;) {
    const quote = text.indexOf('"', from);
    if (quote < 0) return text.length;
    let slashes = 0;
    while (text.charCodeAt(quote - 1 - slashes) === 0x5c) slashes++;
    if (slashes % 2 === 0) return quote + 1;
    from = quote + 1;
  }
}
