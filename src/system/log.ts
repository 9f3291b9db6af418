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
  const pretty = getAnsiColorFormatter({ timestamp: "time", category: () => "" });
  const write = (record: LogRecord): void => {
    output.write(format === "json" ? `${jsonLine(record, node)}\n` : pretty(withFields(record)));
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

function withFields(record: LogRecord): LogRecord {
  const fields = Object.entries(record.properties)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([key, value]) => ` ${key}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  return fields.length === 0
    ? record
    : { ...record, message: [...record.message, fields.join("")] };
}
