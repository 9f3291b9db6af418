/** The goals beside what was measured, as Markdown. */
import type { Row } from "./bench.ts";
import { type Conditions, conditionsText } from "./conditions.ts";
import { spread, type Spread } from "./statistics.ts";

export interface OwnRun {
  readonly members: 3 | 1;
  readonly rows: readonly Row[];
  readonly faults: readonly string[];
}

/** What the other harness writes for one system, as far as it is shown here. */
export interface PeerFigures {
  readonly submit?: Readonly<Record<string, PeerRate>>;
  readonly batch?: Readonly<Record<string, PeerRate>>;
  readonly e2e?: { readonly rate?: Spread };
  readonly e2eBatch?: { readonly rate?: Spread };
  readonly latency?: { readonly p50: Spread; readonly p99: Spread };
  readonly failover?: { readonly gapMs: Spread };
  readonly read?: Readonly<Record<string, PeerRate>>;
  readonly rssMiB?: Readonly<Record<string, number>>;
  readonly settings?: string;
}

interface PeerRate {
  readonly rate: Spread;
}

export interface GoalsRun {
  readonly conditions: Conditions;
  readonly command: string;
  readonly own: OwnRun[];
  /** One for each round and system. */
  readonly peers: { readonly name: string; readonly figures: PeerFigures }[];
  readonly steps: { readonly name: string; readonly seconds: number }[];
  readonly faults: string[];
}

interface Goal {
  readonly what: string;
  /** The measure's name begins with it. */
  readonly measure: string;
  readonly of?: "value" | "p50" | "p99";
  /** For three members, and for one; null: none. */
  readonly goals: readonly [number | null, number | null];
  readonly atMost?: true;
  readonly unit: string;
  /** The same, of another system. */
  readonly peer: ((figures: PeerFigures) => number | undefined) | null;
}

const GOALS: readonly Goal[] = [
  {
    what: "end to end, batches of 100",
    measure: "end to end, outside worker, batches",
    goals: [30_000, 45_000],
    unit: "tasks/s",
    peer: ({ e2e, e2eBatch }) => (e2eBatch ?? e2e)?.rate?.median,
  },
  {
    what: "end to end, members' own executors",
    measure: "end to end, members' own executors",
    goals: [20_000, 25_000],
    unit: "tasks/s",
    peer: null,
  },
  {
    what: "end to end, client library, 64 callers",
    measure: "end to end, outside worker, client library",
    goals: [25_000, 35_000],
    unit: "tasks/s",
    peer: ({ e2e }) => e2e?.rate?.median,
  },
  {
    what: "submits, client library, 64 callers",
    measure: "submit, client library, 64 callers",
    goals: [50_000, 80_000],
    unit: "tasks/s",
    peer: ({ submit }) => submit?.["64"]?.rate.median,
  },
  {
    what: "submits, batches of 100, 8 callers",
    measure: "submit, batches of 100, 8 callers",
    goals: [90_000, 150_000],
    unit: "tasks/s",
    peer: ({ batch }) => batch?.["8"]?.rate.median,
  },
  ...([1, 64, 256] as const).map((callers, i): Goal => {
    const three = [1_500, 17_000, 22_000][i] ?? null;
    return {
      what: `submits, plain HTTP, ${callers} ${callers === 1 ? "caller" : "callers"}`,
      measure: `submit, plain HTTP, ${callers} callers`,
      goals: [three, [4_000, 25_000, 30_000][i] ?? null],
      unit: "tasks/s",
      peer: ({ submit }) => submit?.[String(callers)]?.rate.median,
    };
  }),
  ...(["outside worker", "members' own executors"] as const).flatMap((by) =>
    (["p50", "p99"] as const).map((of): Goal => ({
      what: `submit to start at 50/s, ${by}, ${of}`,
      measure: `submit to start at 50/s, ${by}`,
      of,
      goals: of === "p50" ? [0.8, 0.5] : [2, 1.5],
      atMost: true,
      unit: "ms",
      peer: by === "outside worker" ? ({ latency }) => latency?.[of].median : null,
    })),
  ),
  {
    what: "longest silence after kill -9 of the leader",
    measure: "longest silence after kill -9",
    goals: [150, null],
    atMost: true,
    unit: "ms",
    peer: ({ failover }) => failover?.gapMs.median,
  },
  {
    what: "linearizable reads, leader, 64 callers",
    measure: "linearizable reads of a task, leader",
    goals: [20_000, 30_000],
    unit: "reads/s",
    peer: null,
  },
  {
    what: "linearizable reads, follower, 64 callers",
    measure: "linearizable reads of a task, follower",
    goals: [10_000, null],
    unit: "reads/s",
    peer: null,
  },
  {
    what: "memory of a member after the run",
    measure: "memory of a member after the run",
    goals: [150, 120],
    atMost: true,
    unit: "MiB",
    peer: ({ rssMiB }) => (rssMiB === undefined ? undefined : Math.max(...Object.values(rssMiB))),
  },
];

/** Of the other harness, for every system and this queue alike. */
const SIDE_BY_SIDE: readonly [string, (figures: PeerFigures) => readonly (number | undefined)[]][] =
  [
    [
      "submits/s, 1 / 16 / 64 / 256 callers",
      ({ submit }) => ["1", "16", "64", "256"].map((callers) => submit?.[callers]?.rate.median),
    ],
    [
      "batches of 100: tasks/s, 1 / 8 callers",
      ({ batch }) => ["1", "8"].map((callers) => batch?.[callers]?.rate.median),
    ],
    ["end to end, lone submits, tasks/s", ({ e2e }) => [e2e?.rate?.median]],
    ["end to end, batches, tasks/s", ({ e2eBatch }) => [e2eBatch?.rate?.median]],
    ["submit to start, p50 / p99, ms", ({ latency }) => [latency?.p50.median, latency?.p99.median]],
    ["longest silence after kill -9, ms", ({ failover }) => [failover?.gapMs.median]],
    ["memory after it, MiB, each process", ({ rssMiB }) => Object.values(rssMiB ?? {})],
  ];

/** How many times another system's end-to-end rate is wanted of three members, in the same harness. */
const TIMES: readonly [string, number][] = [
  ["rabbitmq-quorum", 3],
  ["bullmq-everysec", 2],
];

export function goalsPage(run: GoalsRun): string {
  const rounds = run.own.filter(({ members }) => members === 3).length;
  const bySystem = Map.groupBy(run.peers, ({ name }) => name);
  const names = [...bySystem.keys()];
  const others = names.filter((name) => !name.startsWith("flotilla"));
  const figuresOf = (name: string): PeerFigures[] =>
    (bySystem.get(name) ?? []).map(({ figures }) => figures);

  const goalRows = GOALS.map((goal) => [
    `${goal.what}, ${goal.unit}`,
    ...([3, 1] as const).flatMap((members, i) => {
      const wanted = goal.goals[i] ?? null;
      const measured = ownValues(run, members, goal);
      return [wantedText(wanted, goal.atMost), verdict(measured, wanted, goal.atMost)];
    }),
    ...others.map((name) => spreadText(valuesOf(figuresOf(name), goal.peer))),
  ]);
  for (const [name, times] of TIMES) {
    const endToEnd = ({ e2e, e2eBatch }: PeerFigures) => (e2eBatch ?? e2e)?.rate?.median;
    const ours = valuesOf(figuresOf("flotilla"), endToEnd);
    const theirs = valuesOf(figuresOf(name), endToEnd);
    const hasBatches = figuresOf(name).some(({ e2eBatch }) => e2eBatch !== undefined);
    if (ours.length === 0 || theirs.length === 0) continue;
    const ratio = spread(ours).median / spread(theirs).median;
    goalRows.push([
      `end to end, batches: how many times ${name}${hasBatches ? "" : "'s single messages"} (other harness)`,
      wantedText(times),
      verdict([ratio], times),
      "",
      "",
      ...others.map(() => ""),
    ]);
  }
  const head = ["", "goal, three members", "measured", "goal, one member", "measured", ...others];
  const sideBySide = SIDE_BY_SIDE.map(([what, pick]) => [
    what,
    ...names.map((name) => columnText(figuresOf(name).map(pick))),
  ]);
  const settings = names.map((name) => `- ${name}: ${figuresOf(name)[0]?.settings ?? ""}`);
  return [
    `\`${run.command}\``,
    conditionsText(run.conditions),
    `Medians (lowest–highest) of the rounds (${rounds}), which went by turns; **bold**: the goal is met. Columns of other systems: through their own clients, in the other harness.`,
    table(head, goalRows),
    ...(names.length === 0
      ? []
      : [
          "All in the other harness, each through its own client library:",
          table(["", ...names], sideBySide),
          settings.join("\n"),
        ]),
    `Fewest members that had fsynced between a lone submit's arrival and its 201: ${fewestSyncs(run)}.`,
    `Steps, seconds: ${run.steps.map(({ name, seconds }) => `${name.split("/").at(-1)} ${seconds}`).join(", ")}.`,
    run.faults.length === 0
      ? "Everything was measured."
      : `Not measured:\n${run.faults.map((fault) => `- ${fault}`).join("\n")}`,
    "",
  ].join("\n\n");
}

function fewestSyncs({ own }: GoalsRun): string {
  return ([3, 1] as const)
    .map((members) => {
      const values = own
        .filter((each) => each.members === members)
        .flatMap(({ rows }) => rows)
        .filter(({ unit }) => unit === "members")
        .map(({ value }) => value.min);
      return `${values.length === 0 ? "–" : Math.min(...values)} of ${members}`;
    })
    .join(", ");
}

/** One for each round. */
function ownValues({ own }: GoalsRun, members: number, goal: Goal): readonly number[] {
  return own
    .filter((each) => each.members === members)
    .flatMap(({ rows }) => rows.filter(({ measure }) => measure.startsWith(goal.measure)))
    .map((row) => (goal.of === "p50" || goal.of === "p99" ? row[goal.of] : row.value.median))
    .filter((value) => value !== undefined);
}

function valuesOf(
  rounds: readonly PeerFigures[],
  pick: ((figures: PeerFigures) => number | undefined) | null,
): readonly number[] {
  if (pick === null) return [];
  return rounds.map(pick).filter((value) => value !== undefined);
}

function wantedText(wanted: number | null, atMost?: true): string {
  return wanted === null ? "" : `${atMost === true ? "≤" : "≥"} ${numberText(wanted)}`;
}

function verdict(values: readonly number[], wanted: number | null, atMost?: true): string {
  const text = spreadText(values);
  if (values.length === 0 || wanted === null) return text;
  const { median } = spread(values);
  const met = atMost === true ? median <= wanted : median >= wanted;
  return met ? `**${text}**` : text;
}

function spreadText(values: readonly number[]): string {
  if (values.length === 0) return "–";
  const { median, min, max } = spread(values);
  return values.length === 1
    ? numberText(median)
    : `${numberText(median)} (${numberText(min)}–${numberText(max)})`;
}

/** Figures that stand beside each other in one cell, each the median of the rounds. */
function columnText(rounds: readonly (readonly (number | undefined)[])[]): string {
  const width = Math.max(0, ...rounds.map((figures) => figures.length));
  const cells = Array.from({ length: width }, (_, i) => {
    const values = rounds.map((figures) => figures[i]).filter((value) => value !== undefined);
    return values.length === 0 ? "–" : numberText(spread(values).median);
  });
  return cells.length === 0 ? "–" : cells.join(" / ");
}

function numberText(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(3).replace(/\.?0+$/, "");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
}
