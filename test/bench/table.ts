/** Rows as Markdown, to be read in a terminal and pasted into a page. */
import type { Row, Setup } from "./bench.ts";

export function setupText({ members, payload, linkMs, fsyncMs }: Setup): string {
  return [
    members === 1 ? "one member" : `${members} members`,
    `payloads of ${payload} bytes`,
    ...(linkMs === 0 ? [] : [`${linkMs} ms added to each link, each way`]),
    ...(fsyncMs === 0 ? [] : [`${fsyncMs} ms added to each fsync of the log`]),
  ].join(", ");
}

/** One table a setup, in the order in which they were measured. */
export function tables(rows: readonly Row[]): string {
  const bySetup = Map.groupBy(rows, ({ setup }) => setupText(setup));
  return [...bySetup].map(([setup, own]) => `### ${setup}\n\n${table(own)}`).join("\n\n");
}

function table(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const cpu = row.cpu;
    return [
      row.measure,
      `${number(row.value.median)} ${row.unit}`,
      row.value.n > 1 ? `${number(row.value.min)}–${number(row.value.max)}` : "",
      row.p50 === undefined ? "" : `${ms(row.p50)} / ${ms(row.p99 ?? Number.NaN)}`,
      row.spent === undefined ? "" : spentText(row.spent),
      cpu === undefined
        ? ""
        : `${cpu.client.toFixed(2)} / ${cpu.members.toFixed(2)} / ${cpu.others.toFixed(2)}`,
      [row.failed === undefined || row.failed === 0 ? "" : `${row.failed} failed`, row.note ?? ""]
        .filter((text) => text !== "")
        .join("; "),
    ];
  });
  const head = [
    "measure",
    "median",
    "lowest–highest",
    "p50 / p99, ms",
    "CPU µs a task: clients + members",
    "cores: clients / members / others",
    "remarks",
  ];
  return [head, head.map(() => "---"), ...lines]
    .map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
}

/** On one line, while it runs. */
export function rowText(row: Row): string {
  const latency =
    row.p50 === undefined ? "" : `, p50 ${ms(row.p50)} p99 ${ms(row.p99 ?? Number.NaN)} ms`;
  const others =
    row.cpu === undefined || row.cpu.others < 0.1
      ? ""
      : `, others used ${row.cpu.others.toFixed(2)} cores`;
  const spent =
    row.spent === undefined ? "" : `, CPU µs a task: clients + members ${spentText(row.spent)}`;
  const note = row.note === undefined ? "" : ` (${row.note})`;
  return `${row.measure}: ${number(row.value.median)} ${row.unit}${latency}${spent}${others}${note}`;
}

function spentText({ client, members }: NonNullable<Row["spent"]>): string {
  return `${client.toFixed(1)} + ${members.toFixed(1)}`;
}

function ms(value: number): string {
  return Number.isNaN(value) ? "–" : value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function number(value: number): string {
  if (Number.isNaN(value)) return "–";
  return Math.abs(value) >= 100
    ? Math.round(value).toLocaleString("en-US")
    : value.toPrecision(3).replace(/\.?0+$/, "");
}
