import { expect, test } from "bun:test";
import { firstNumber } from "../../src/replica/question-numbers.ts";

test("every start of every folder counts from another number, which goes over the wire whole", () => {
  const firsts = new Set<number>();
  for (const incarnation of ["0a1b2c3d4e5f6071", "0a1b2c3d4e5f6072"])
    for (let boot = 1; boot <= 1_000; boot++) firsts.add(firstNumber({ incarnation, boot }));
  expect(firsts.size).toBe(2_000);
  for (const first of firsts) {
    expect(first).toBeGreaterThan(0);
    expect(Number.isSafeInteger(first + 2 ** 50)).toBe(true);
  }
  expect(firstNumber({ incarnation: "a", boot: 7 })).toBe(
    firstNumber({ incarnation: "a", boot: 7 }),
  );
});
