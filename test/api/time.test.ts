import { expect, test } from "bun:test";
import fc from "fast-check";
import { formatTime, formatTimeOrNull, parseTime } from "../../src/api/time.ts";

test("what is formatted is read back", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 253_402_300_799_999 }), (ms) => {
      expect(parseTime(formatTime(ms))).toBe(ms);
    }),
  );
});

test("offsets, fractions and lower case are read as RFC 3339 says", () => {
  const noon = Date.UTC(2030, 0, 31, 12);
  expect(parseTime("2030-01-31T12:00:00Z")).toBe(noon);
  expect(parseTime("2030-01-31t12:00:00z")).toBe(noon);
  expect(parseTime("2030-01-31T14:30:00+02:30")).toBe(noon);
  expect(parseTime("2030-01-31T11:00:00-01:00")).toBe(noon);
  expect(parseTime("2030-01-31T12:00:00.5Z")).toBe(noon + 500);
  expect(parseTime("2030-01-31T12:00:00.123456789Z")).toBe(noon + 123);
  expect(parseTime("2028-02-29T00:00:00Z")).toBe(Date.UTC(2028, 1, 29));
});

test("days and hours that do not exist, and other spellings, are refused", () => {
  for (const text of [
    "2030-02-29T00:00:00Z",
    "2030-04-31T00:00:00Z",
    "2030-13-01T00:00:00Z",
    "2030-00-10T00:00:00Z",
    "2030-01-00T00:00:00Z",
    "2030-01-01T24:00:00Z",
    "2030-01-01T23:60:00Z",
    "2030-01-01T23:59:60Z",
    "2030-01-01T00:00:00",
    "2030-01-01T00:00:00+0100",
    "2030-01-01T00:00:00+24:00",
    "2030-01-01 00:00:00Z",
    "2030-01-01",
    "2030-1-1T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "0050-01-01T00:00:00Z",
    "1767225600000",
    "tomorrow",
    "",
    " 2030-01-01T00:00:00Z",
  ]) {
    expect([text, parseTime(text)]).toEqual([text, null]);
  }
});

test("no time stays no time", () => {
  expect(formatTimeOrNull(null)).toBeNull();
  expect(formatTimeOrNull(0)).toBe("1970-01-01T00:00:00.000Z");
});
