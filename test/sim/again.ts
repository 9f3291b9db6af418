/**
 * Runs the seeds that it is given, last first, in a process of its own with the settings of the engine that `bun run sim`
 * has, and prints what came of each as a line of JSON: `[seed, hash, events]`.
 */
import "./engine.ts";
import { runSeed } from "./batch.ts";

for (const seed of process.argv.slice(2).map(Number).toReversed()) {
  const { hash, events } = await runSeed(seed, false);
  console.log(JSON.stringify([seed, hash, events]));
}
