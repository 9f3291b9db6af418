/** Text that is cut rather than refused. */

const CUT_MARK = "… [cut]";
const CUT_MARK_BYTES = Buffer.byteLength(CUT_MARK);

/** `text` within `maxBytes` of UTF-8, cut between characters and marked when it was longer. */
export function cutText(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.byteLength <= maxBytes) return text;
  let end = maxBytes - CUT_MARK_BYTES;
  // Back to the first byte of a character: continuation bytes are 10xxxxxx.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end) + CUT_MARK;
}
