import { expect, setDefaultTimeout, test } from "bun:test";
import { drawOptions } from "./options.ts";
import { type Override, runWith, shrink } from "./shrink.ts";

setDefaultTimeout(60_000);

/** A seed with several members and kinds of faults. */
const SEED = Array.from({ length: 100 }, (_, i) => i + 1).find((seed) => {
  const { members, families } = drawOptions(seed);
  return members === 3 && families.size > 8;
}) as number;

test("a failure that needs one kind of fault and two members shrinks to them", async () => {
  const clean = await runWith(SEED, { families: [], faultsMs: 300, replay: false });
  expect(clean.failure).toBeNull();
  const drawn = drawOptions(SEED);
  const needed = [...drawn.families][0];
  if (needed === undefined) throw new Error("a seed without faults");
  let runs = 0;
  const run = async (_: number, override: Override): Promise<typeof clean> => {
    runs += 1;
    const families = override.families ?? [...drawn.families];
    const fails = families.includes(needed) && (override.members ?? drawn.members) >= 2;
    return fails ? { ...clean, failure: { rule: "r", detail: "d", atMs: 0, event: 1 } } : clean;
  };
  const shrunk = await shrink(SEED, {}, () => undefined, run);
  expect(shrunk?.override).toMatchObject({
    families: [needed],
    members: 2,
    clients: 1,
    workers: 0,
  });
  expect(runs).toBeLessThan(200);
});

test("a run that breaks nothing is not shrunk", async () => {
  const run = () => runWith(SEED, { families: [], faultsMs: 300, replay: false });
  expect(await shrink(SEED, {}, () => undefined, run)).toBeNull();
});

test("shrinking begins with the override that is given, and keeps what it says", async () => {
  const clean = await runWith(SEED, { families: [], faultsMs: 300, replay: false });
  const given: Override = { members: 2, thinkMs: 70, families: ["loss", "crash"] };
  const tried: Override[] = [];
  const run = async (_: number, override: Override): Promise<typeof clean> => {
    tried.push(override);
    const fails = override.families?.includes("crash") === true && override.thinkMs === 70;
    return fails ? { ...clean, failure: { rule: "r", detail: "d", atMs: 0, event: 1 } } : clean;
  };
  const shrunk = await shrink(SEED, given, () => undefined, run);
  expect(tried[0]).toEqual(given);
  expect(shrunk?.override).toMatchObject({ thinkMs: 70, families: ["crash"], members: 1 });
});
