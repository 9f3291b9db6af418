/** What a member's folder, or a member that runs, says of itself: for choosing the survivor that is furthest. */
import { Database } from "bun:sqlite";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { decodeConfigurationEntry } from "../raft/configuration.ts";
import { asIndex, asNodeId, asTerm, type Configuration, type NodeId } from "../raft/types.ts";
import { FatalError } from "../replica/ports.ts";
import { kindOf, LOG_FILE, LOG_FORMAT } from "../storage/log-format.ts";
import type { Position } from "./judgement.ts";

const ANSWER_MS = 2_000;

export interface FolderSurvey {
  readonly id: NodeId;
  readonly clusterId: string | null;
  readonly last: Position;
  readonly configuration: Configuration | null;
}

interface Row {
  readonly idx: number;
  readonly term: number;
  readonly kind: number;
  readonly data: Uint8Array;
}

/** @throws FatalError there is no log in `folder` */
export function refuseNoFolder(folder: string): void {
  if (!existsSync(join(folder, LOG_FILE)))
    throw new FatalError(`${folder} is no data folder: it has no ${LOG_FILE}`);
}

/**
 * Reads the log in `folder` and changes nothing. Nobody may be using it: the caller has locked it.
 * @throws FatalError no log there, another format, damaged
 */
export function surveyFolder(folder: string): FolderSurvey {
  const path = join(folder, LOG_FILE);
  refuseNoFolder(folder);
  let db: Database | null = null;
  try {
    db = new Database(path, { readonly: true, strict: true });
    return survey(db, path);
  } catch (error) {
    if (error instanceof FatalError) throw error;
    throw new FatalError(
      `cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`,
    );
  } finally {
    db?.close(true);
  }
}

function survey(db: Database, path: string): FolderSurvey {
  const meta = new Map(
    db
      .query<{ key: string; value: string }, []>("SELECT key, value FROM meta")
      .all()
      .map(({ key, value }) => [key, value]),
  );
  if (meta.get("format") !== LOG_FORMAT)
    throw new FatalError(
      `${path} has format ${meta.get("format")}, this build reads ${LOG_FORMAT}`,
    );
  const [compactedIndex = 0, compactedTerm = 0] = (meta.get("compacted") ?? "0:0")
    .split(":")
    .map(Number);
  const last = db
    .query<{ idx: number; term: number }, []>(
      "SELECT idx, term FROM entries ORDER BY idx DESC LIMIT 1",
    )
    .get();
  const newest = db
    .query<Row, []>(
      `SELECT idx, term, kind, data FROM (
         SELECT idx, term, kind, data FROM entries WHERE kind IN (2, 3)
         UNION ALL SELECT idx, term, kind, data FROM foundations)
       ORDER BY idx DESC LIMIT 1`,
    )
    .get();
  return {
    id: asNodeId(meta.get("id") ?? ""),
    clusterId: meta.get("cluster_id") ?? null,
    last: {
      index: asIndex(last?.idx ?? compactedIndex),
      term: asTerm(last?.term ?? compactedTerm),
    },
    configuration: newest === null ? null : configurationOf(newest),
  };
}

function configurationOf({ idx, term, kind: number, data }: Row): Configuration {
  const kind = kindOf(number);
  if (kind === null) throw new FatalError(`entry ${idx} is of an unknown kind`);
  return decodeConfigurationEntry({ index: asIndex(idx), term: asTerm(term), kind, data });
}

export interface LiveSurvey {
  readonly id: string;
  /** In touch with a leader. */
  readonly healthy: boolean;
  readonly reason: string | null;
  /** Of its log; null when it may not be asked (FLOTILLA_TOKEN), or does not say. */
  readonly last: { readonly index: number } | null;
}

/** Null: nobody answers there, or nobody of this kind. */
export async function surveyMember(
  url: string,
  { token, tls }: { readonly token: string | null; readonly tls: { readonly ca?: string } },
): Promise<LiveSurvey | null> {
  const headers: Record<string, string> =
    token === null ? {} : { authorization: `Bearer ${token}` };
  const ask = async (path: string): Promise<Readonly<Record<string, unknown>> | null> => {
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      const response = await fetch(`${url}${path}`, { headers, signal, tls });
      const body: unknown = await response.json();
      return typeof body === "object" && body !== null ? { ...body } : null;
    } catch {
      return null;
    }
  };
  const health = await ask("/health");
  const id = health?.["node_id"];
  if (typeof id !== "string") return null;
  const cluster = await ask("/api/cluster?consistency=stale");
  const reason = health?.["reason"];
  return {
    id,
    healthy: health?.["status"] === "healthy",
    reason: typeof reason === "string" ? reason : null,
    last: lastOf(cluster?.["members"], id),
  };
}

function lastOf(members: unknown, id: string): { readonly index: number } | null {
  if (!Array.isArray(members)) return null;
  for (const member of members as readonly unknown[]) {
    const { id: name, match_index: index } = { id: null, match_index: null, ...Object(member) } as {
      id: unknown;
      match_index: unknown;
    };
    if (name === id && typeof index === "number") return { index };
  }
  return null;
}
