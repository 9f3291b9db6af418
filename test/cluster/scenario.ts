/**
 * Tests of real members, side by side. Such a test spends most of its time waiting: for a start, an election, a
 * time limit. side-by-side.test.ts runs the `*.scenario.ts` files at the same time; one of them alone:
 * `bun test ./test/cluster/NAME.scenario.ts`. Each scenario has members of its own, shares nothing, and must not
 * care what else the machine does. A test that does care has a `*.test.ts` of its own.
 */
import { test } from "bun:test";
import { type ClusterOptions, RealCluster } from "./harness.ts";

/** More only wait for each other's processors, and for memory: a scenario has three members or so. */
const AT_ONCE = 4;
/** With the wait for a turn; a machine that is busy with other work is slow, not wrong. */
const LIMIT_MS = 300_000;

let running = 0;
const waiting: (() => void)[] = [];

async function turn(run: () => Promise<void>): Promise<void> {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else running += 1;
  try {
    await run();
  } finally {
    const next = waiting.shift();
    if (next === undefined) running -= 1;
    else next();
  }
}

/** `skip`: what this scenario needs is not installed; its name says what that is. */
export function scenario(
  what: string,
  run: () => Promise<void>,
  { skip = false }: { readonly skip?: boolean } = {},
): void {
  test.concurrent.skipIf(skip)(what, () => turn(run), LIMIT_MS);
}

/** A started cluster that is gone afterwards. */
export async function withCluster(
  options: ClusterOptions,
  run: (cluster: RealCluster) => Promise<void>,
): Promise<void> {
  const cluster = await RealCluster.start(options);
  try {
    await run(cluster);
  } finally {
    await cluster.stop();
  }
}
