/** Plays testdata/*.txt. `REWRITE=1 bun test test/raft` writes the traces anew; read the diff. */
import { describe, expect, test } from "bun:test";
import { Glob } from "bun";
import { play } from "./trace-language.ts";

const FOLDER = new URL("testdata/", import.meta.url).pathname;

describe("traces", () => {
  const files = [...new Glob("*.txt").scanSync(FOLDER)].sort();
  test("there are some", () => expect(files.length).toBeGreaterThan(15));
  for (const file of files) {
    test(file.replace(".txt", "").replaceAll("-", " "), async () => {
      const path = FOLDER + file;
      const expected = await Bun.file(path).text();
      const played = play(expected);
      if (process.env["REWRITE"] === "1") await Bun.write(path, played);
      else expect(played).toBe(expected);
    });
  }
});
