import { expect, test } from "bun:test";
import { type LineStream, Output } from "../../src/system/output.ts";

/** Takes writes and settles them when the test says so. */
class FakeStream implements LineStream {
  taken = "";
  throws = false;
  listening = 0;
  #unsettled: ((error?: Error | null) => void)[] = [];

  write(text: string, done: (error?: Error | null) => void): boolean {
    if (this.throws) throw new Error("closed");
    this.taken += text;
    this.#unsettled.push(done);
    return true;
  }

  on(): void {
    this.listening += 1;
  }

  settle(code?: string): void {
    const settling = this.#unsettled;
    this.#unsettled = [];
    const error = code === undefined ? null : Object.assign(new Error(code), { code });
    for (const done of settling) done(error);
  }
}

function opened(maxWaiting?: number): { out: FakeStream; err: FakeStream; output: Output } {
  const [out, err] = [new FakeStream(), new FakeStream()];
  return { out, err, output: new Output(out, err, maxWaiting) };
}

test("what comes before the first line goes to standard error, the rest to standard output", () => {
  const { out, err, output } = opened();
  output.write("early\n");
  output.open("first\n");
  output.write("later\n");
  expect(err.taken).toBe("early\n");
  expect(out.taken).toBe("first\nlater\n");
});

test("an error event of either stream has a listener", () => {
  const { out, err } = opened();
  expect([out.listening, err.listening]).toEqual([1, 1]);
});

test("lines that a reader who left did not take go to standard error, and so do all after them", () => {
  const { out, err, output } = opened();
  output.open("first\n");
  out.settle();
  output.write("second\n");
  out.settle("EPIPE");
  output.write("third\n");
  expect(err.taken).toBe("second\nthird\n");
  expect(out.taken).toBe("first\nsecond\n");
});

test("a disk that was full for a while does not end the use of standard output", () => {
  const { out, err, output } = opened();
  output.open("first\n");
  out.settle("ENOSPC");
  output.write("second\n");
  out.settle();
  expect(err.taken).toBe("first\n");
  expect(out.taken).toBe("first\nsecond\n");
});

test("with both gone, lines are dropped and nothing is thrown", () => {
  const { out, err, output } = opened();
  output.open("first\n");
  out.settle("EPIPE");
  err.settle("EPIPE");
  output.write("second\n");
  output.writeError("last\n");
  expect(out.taken + err.taken).toBe("first\nfirst\n");
});

test("a stream that throws is as good as one that fails", () => {
  const { out, err, output } = opened();
  output.open("first\n");
  out.throws = true;
  output.write("second\n");
  expect(err.taken).toBe("second\n");
  err.throws = true;
  output.write("third\n");
});

test("a reader that does not read makes nothing grow: lines are left out, and it is told how many", () => {
  const { out, output } = opened(20);
  output.open("1234567\n");
  for (let i = 0; i < 1_000; i++) output.write("123456789\n");
  expect(out.taken.length).toBeLessThanOrEqual(20);
  out.settle();
  output.write("again\n");
  expect(out.taken).toContain("(999 lines were left out");
  expect(out.taken).toEndWith("again\n");
});
