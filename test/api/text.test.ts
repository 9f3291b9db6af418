import { expect, test } from "bun:test";
import fc from "fast-check";
import { cutText } from "../../src/api/text.ts";

test("text within the limit stays as it is", () => {
  expect(cutText("äöü", 6)).toBe("äöü");
});

test("longer text is cut between characters, marked, and never over the limit", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "binary", minLength: 10, maxLength: 60 }),
      fc.integer({ min: 12, max: 40 }),
      (text, max) => {
        const cut = cutText(text, max);
        if (Buffer.byteLength(text) <= max) expect(cut).toBe(text);
        else {
          expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(max);
          expect(cut.endsWith("… [cut]")).toBe(true);
          expect(text.startsWith(cut.slice(0, -"… [cut]".length))).toBe(true);
        }
      },
    ),
  );
});
