/** The command line of `bun run bench`. */
import { parseArgs } from "node:util";
import type { Setup, Sizes } from "./bench.ts";

/** In the order in which they run. */
export const MEASURES = [
  "submit",
  "client",
  "batch",
  "e2e",
  "latency",
  "reads",
  "fsync",
  "memory",
  "own",
  "failover",
  "steady",
  "idle",
  "depth",
  "overload",
] as const;
export type MeasureName = (typeof MEASURES)[number];

/** Those that take minutes, or need their own time: named by --only. */
const LONG: readonly MeasureName[] = ["steady", "idle", "depth", "overload"];

const HELP = `bun run bench [options]     measures real members of this machine; tables on standard output, progress on standard error

  --quick             a few seconds for each figure, one repetition: to see whether a change did something
  --only A,B          ${MEASURES.join(" ")}
                      (without it: all but ${LONG.join(" ")}, which take minutes)
  --members 3,1       clusters of so many members, one table each
  --payload 200       bytes; several make several tables
  --link 0            milliseconds added to each link between members, in each direction
  --fsync 0           milliseconds added to each commit of the log, by a wrapper around its storage
  --concurrency 10    own: executors of each member
  --depth 1000000     depth: so many tasks wait, or are finished, in the table
  --warm 0            seconds of load before the first figure of each cluster, of which nothing is kept
  --reps N --seconds N --tasks N --steady-seconds N
  --profile           CPU profiles of the members, written at their ends into $BENCH_PROFILES
  --json FILE         all rows, with conditions

BENCH_DIR: where the members' files lie (the system's temporary folder otherwise).
`;

export interface Options {
  readonly only: readonly MeasureName[];
  readonly setups: readonly Setup[];
  readonly sizes: Sizes;
  readonly depth: number;
  /** Executors of each member where its own run the tasks. */
  readonly concurrency: number;
  /** Seconds of load before the first figure. */
  readonly warmSeconds: number;
  readonly json: string | null;
  readonly profile: boolean;
}

const FULL: Sizes = {
  reps: 3,
  seconds: 3,
  tasks: 20_000,
  latencySeconds: 10,
  failoverSeconds: 8,
  trials: 3,
  steadySeconds: 600,
  quietMs: 3_000,
};
const QUICK: Sizes = {
  reps: 1,
  seconds: 1,
  tasks: 10_000,
  latencySeconds: 3,
  failoverSeconds: 4,
  trials: 1,
  steadySeconds: 10,
  quietMs: 0,
};

/** Ends the process for --help and for what makes no sense. */
export function parseOptions(argv: readonly string[]): Options {
  const { values } = parse(argv);
  if (values.help === true) stop(0, HELP);
  const base = values.quick === true ? QUICK : FULL;
  const size = (given: string | undefined, fallback: number, name: string): number =>
    given === undefined ? fallback : numberOf(given, name);
  const setups: Setup[] = [];
  for (const members of numbers(values.members ?? "3,1", "members"))
    for (const payload of numbers(values.payload ?? "200", "payload"))
      for (const linkMs of numbers(values.link ?? "0", "link"))
        for (const fsyncMs of numbers(values.fsync ?? "0", "fsync"))
          setups.push({ members, payload, linkMs, fsyncMs });
  return {
    only:
      values.only === undefined
        ? MEASURES.filter((name) => !LONG.includes(name))
        : values.only.split(",").map(measureOf),
    setups,
    sizes: {
      ...base,
      reps: size(values.reps, base.reps, "reps"),
      trials: size(values.reps, base.trials, "reps"),
      seconds: size(values.seconds, base.seconds, "seconds"),
      tasks: size(values.tasks, base.tasks, "tasks"),
      steadySeconds: size(values["steady-seconds"], base.steadySeconds, "steady-seconds"),
    },
    concurrency: size(values.concurrency, 10, "concurrency"),
    depth: size(values.depth, 1_000_000, "depth"),
    warmSeconds: size(values.warm, 0, "warm"),
    json: values.json ?? null,
    profile: values.profile === true,
  };
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        help: { type: "boolean" },
        quick: { type: "boolean" },
        profile: { type: "boolean" },
        only: { type: "string" },
        members: { type: "string" },
        payload: { type: "string" },
        link: { type: "string" },
        fsync: { type: "string" },
        depth: { type: "string" },
        concurrency: { type: "string" },
        warm: { type: "string" },
        reps: { type: "string" },
        seconds: { type: "string" },
        tasks: { type: "string" },
        "steady-seconds": { type: "string" },
        json: { type: "string" },
      },
    });
  } catch (error) {
    return stop(2, `${error instanceof Error ? error.message : String(error)}\n`);
  }
}

function measureOf(name: string): MeasureName {
  const found = MEASURES.find((known) => known === name);
  return found ?? stop(2, `--only: ${name} is none of ${MEASURES.join(", ")}\n`);
}

function numbers(text: string, name: string): number[] {
  return text.split(",").map((part) => numberOf(part, name));
}

function numberOf(text: string, name: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && Number.isFinite(value)) return value;
  return stop(2, `--${name}: ${text} is no number from 0\n`);
}

function stop(code: number, text: string): never {
  (code === 0 ? process.stdout : process.stderr).write(text);
  process.exit(code);
}
