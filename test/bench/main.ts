/** `bun run bench`: measures real members of this machine and prints tables. See options.ts for what it takes. */
import { writeFileSync } from "node:fs";
import { Bench, type Row } from "./bench.ts";
import { BenchCluster, profileFolder } from "./cluster.ts";
import { commandLine, conditionsText, readConditions } from "./conditions.ts";
import { depth } from "./measures/depth.ts";
import { durability } from "./measures/durability.ts";
import { endToEndOutside, endToEndOwn } from "./measures/end-to-end.ts";
import { failover } from "./measures/failover.ts";
import { idle } from "./measures/idle.ts";
import { latencyOutside, latencyOwn } from "./measures/latency.ts";
import { memory } from "./measures/memory.ts";
import { overload } from "./measures/overload.ts";
import { linearizableReads } from "./measures/reads.ts";
import { steadyLoad } from "./measures/steady.ts";

import { submitsByClient, submitsByHttp, submitsInBatches } from "./measures/submits.ts";
import { warmUp } from "./measures/warm.ts";
import { type MeasureName, parseOptions } from "./options.ts";
import { rowText, setupText, tables } from "./table.ts";

type Measure = (bench: Bench) => Promise<void>;

const options = parseOptions(process.argv.slice(2));
const conditions = await readConditions();
console.error(conditionsText(conditions));

/** On a cluster whose own executors are idle: workers outside, or none. */
const OUTSIDE: Partial<Record<MeasureName, Measure>> = {
  submit: (bench) => submitsByHttp(bench),
  client: submitsByClient,
  batch: (bench) => submitsInBatches(bench),
  e2e: endToEndOutside,
  latency: latencyOutside,
  reads: linearizableReads,
  fsync: durability,
  memory,
  failover,
  steady: steadyLoad,
  idle,
  depth: (bench) => depth(bench, options.depth),
  overload,
};
const OWN: Partial<Record<MeasureName, Measure>> = {
  own: async (bench) => {
    await endToEndOwn(bench);
    await latencyOwn(bench);
  },
};

const rows: Row[] = [];
const faults: string[] = [];
for (const setup of options.setups) {
  console.error(`\n${setupText(setup)}`);
  for (const [measures, concurrency] of [
    [OUTSIDE, 0],
    [OWN, options.concurrency],
  ] as const) {
    const names = options.only.filter((name) => measures[name] !== undefined);
    if (names.length === 0) continue;
    const cluster = await BenchCluster.start({ ...setup, concurrency, profile: options.profile });
    const bench = new Bench(options.sizes, setup, cluster, (row) => console.error(rowText(row)));
    try {
      if (options.warmSeconds > 0) await warmUp(bench, options.warmSeconds);
      for (const name of names) {
        try {
          await measures[name]?.(bench);
        } catch (error) {
          const text = `${name} could not be measured: ${error instanceof Error ? error.message : String(error)}`;
          faults.push(text);
          console.error(text);
        }
      }
    } finally {
      rows.push(...bench.rows);
      await cluster.stop({ gently: options.profile });
    }
  }
}

if (options.profile) console.error(`profiles: ${profileFolder()}`);
const command = commandLine();
console.log(
  `${conditionsText(conditions)}\n\`${command}\`\n\n${tables(rows)}\n${faults.join("\n")}`,
);
if (options.json !== null)
  writeFileSync(
    options.json,
    `${JSON.stringify({ conditions, command, rows, faults }, null, 1)}\n`,
  );
process.exit(faults.length === 0 ? 0 : 1);
