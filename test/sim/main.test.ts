import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";

/** Each is a process of its own, and replaces itself once. */
setDefaultTimeout(30_000);

async function sim(
  ...args: readonly string[]
): Promise<{ code: number; out: string; err: string }> {
  const child = Bun.spawn(["bun", join(import.meta.dir, "main.ts"), ...args], {
    stdout: "pipe",
    stderr: "pipe",
  });
  const [code, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code, out, err };
}

test.concurrent.each([[["--help"]], [["-h"]]])(
  "%p prints the usage, and nothing else",
  async (args) => {
    const { code, out, err } = await sim(...args);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toStartWith("usage: bun run sim");
    for (const flag of ["--seed", "--seeds", "--shrink", "--mutants", "--coverage"])
      expect(out).toContain(flag);
  },
);

test.concurrent.each([
  [["--sed", "1"], "Unknown option '--sed'"],
  [["--seed", "one"], '--seed takes a number, not "one"'],
  [[], "usage: bun run sim"],
])("%p ends with 2 and says why", async (args, said) => {
  const { code, out, err } = await sim(...args);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain(said);
  expect(err).not.toContain("    at ");
});
