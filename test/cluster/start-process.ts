/** One process of `src/node.ts`, with its two outputs kept apart: for tests of how it starts and ends. */
import { join } from "node:path";
import { ENGINE_SETTINGS } from "../../src/system/engine.ts";

const ROOT = join(import.meta.dir, "..", "..");

/** Without what the tests set of the engine: these members settle it themselves, as whoever starts one has them do. */
const ENV = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !Object.hasOwn(ENGINE_SETTINGS, name)),
);

export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export function spawnNode(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  return Bun.spawn(["bun", "run", "src/node.ts", ...args], {
    cwd: ROOT,
    env: { ...ENV, NO_COLOR: "1", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}

/** For a process that is expected to end by itself. */
export async function endOf(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const child = spawnNode(args, env);
  const [code, out, err] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code, out, err };
}

/** Runs a line of shell in the project's folder; `$NODE` is the command that starts a member. */
export function spawnShell(line: string) {
  return Bun.spawn(["bash", "-c", line], {
    cwd: ROOT,
    env: { ...ENV, NO_COLOR: "1", NODE: "bun run src/node.ts" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}
