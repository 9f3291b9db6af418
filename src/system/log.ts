/**
 * The process's log: one record a line, pretty for people, JSON for machines; where lines go is `Output`'s.
 * LogTape formats and filters (structured, categories, no dependencies of its own).
 */
import { configure, getAnsiColorFormatter, getLogger, type LogRecord } from "@logtape/logtape";
import type { Log } from "../replica/ports.ts";
import type { Output } from "./output.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

/** Sets the process's log up; once. */
export async function openLog(
  level: LogLevel,
  format: "pretty" | "json",
  node: string,
  output: Output,
): Promise<Log> {
  const write = (record: LogRecord): void => {
    output.write(format === "json" ? `${jsonLine(record, node)}\n` : prettyLine(record));
  };
  await configure({
    sinks: { out: write },
    loggers: [
      { category: ["flotilla"], sinks: ["out"], lowestLevel: level === "warn" ? "warning" : level },
      { category: ["logtape", "meta"], sinks: ["out"], lowestLevel: "warning" },
    ],
  });
  const logger = getLogger(["flotilla"]);
  return {
    debug: (message, fields) => logger.debug(literal(message), { ...fields }),
    info: (message, fields) => logger.info(literal(message), { ...fields }),
    warn: (message, fields) => logger.warn(literal(message), { ...fields }),
    error: (message, fields) => logger.error(literal(message), { ...fields }),
  };
}

/** The line that says that the process can serve. Part of the interface, so no level leaves it out. */
export function listeningLine(format: "pretty" | "json", node: string, url: string): string {
  if (format === "pretty") return `flotilla ${node} listening on ${url}\n`;
  const record = { level: "info", node, msg: "listening", id: node, url };
  return `${JSON.stringify({ time: new Date().toISOString(), ...record })}\n`;
}

/** Messages are sentences, not templates: braces in them mean nothing. */
function literal(message: string): string {
  return message.replaceAll("{", "{{").replaceAll("}", "}}");
}

function jsonLine(record: LogRecord, node: string): string {
  const level = record.level === "warning" ? "warn" : record.level;
  const msg = record.message.map(String).join("");
  return JSON.stringify({
    time: new Date(record.timestamp).toISOString(),
    level,
    node,
    msg,
    ...record.properties,
  });
}

const colour = getAnsiColorFormatter({ timestamp: "time", category: () => "" });
/** What could move a terminal's cursor or end a line. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

/** For a terminal: the sentence, and its fields after it in dim. Ends with a line break. */
export function prettyLine(record: LogRecord): string {
  const fields = Object.entries(record.properties)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([key, value]) => ` ${key}=${fieldText(key, value)}`)
    .join("");
  // Every other part of a message is a value, which would be printed in quotes: the fields join the last text.
  const text = record.message.map(String).join("");
  return colour({
    ...record,
    message: [fields === "" ? text : `${text}\u001b[2m${fields}\u001b[22m`],
  });
}

/** Stacks keep their lines. Other texts may come from anybody: what is not printable is escaped. */
function fieldText(key: string, value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value);
  if (key === "stack" || !CONTROL.test(value)) return value;
  // JSON leaves those from DEL on as they are.
  return JSON.stringify(value).replaceAll(
    /[\u007f-\u009f]/g,
    (control) => `\\u00${control.charCodeAt(0).toString(16)}`,
  );
}
