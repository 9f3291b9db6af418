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
  [["--seed", "one"], '--seed takes a whole number from 0 to 4294967295, not "one"'],
  [["--seed", "1", "2"], "only --mutants takes names: 2"],
  [[], "usage: bun run sim"],
])("%p ends with 2 and says why", async (args, said) => {
  const { code, out, err } = await sim(...args);
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain(said);
  expect(err).not.toContain("    at ");
});

test("a batch over processes that is stopped sums up what had run", async () => {
  const override = { members: 1, families: [], faultsMs: 300, replay: false };
  const flags = { seeds: "1000000", from: "1", jobs: "2", override: JSON.stringify(override) };
  const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
  const child = Bun.spawn(["bun", join(import.meta.dir, "main.ts"), ...args, "--announce"], {
    stdout: "pipe",
    stderr: "pipe",
  });
  let out = "";
  let told = false;
  for await (const bytes of child.stdout) {
    out += new TextDecoder().decode(bytes);
    if (told || !out.includes("seed 3\n") || !out.includes("seed 4\n")) continue;
    told = true;
    child.kill("SIGTERM");
  }
  expect(await child.exited).toBe(143);
  const [, ran = "0"] = /^(\d+) seeds from 1: \1 passed, 0 failed; /m.exec(out) ?? [];
  expect(Number(ran)).toBeGreaterThanOrEqual(2);
  expect(await new Response(child.stderr).text()).toContain(`SIGTERM: ${ran} of 1000000 seeds`);
});
