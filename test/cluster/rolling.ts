/**
 * `bun run test/cluster/rolling.ts [--rounds 1] [--clients 8]`: restarts three members one after the other under
 * load, as an upgrade does, and prints what the clients saw of it: requests, retries, and for each restart the
 * gaps in which nothing was acknowledged. Exits 1 when a request was lost: not acknowledged within its time
 * limit, or acknowledged and not there in the end.
 */
import { parseArgs } from "node:util";
import {
  type ClusterView,
  eventually,
  type Member,
  RealCluster,
  type TaskJson,
} from "./harness.ts";

/** Of one request, with its retries. */
const LIMIT_MS = 5_000;
/** Nothing acknowledged for longer than this is told as a gap. */
const GAP_MS = 100;
const PAUSE_BETWEEN_MS = 300;
/** The same load without a restart, before the first one: what the machine itself makes of it. */
const CALM_MS = 3_000;
const TASKS_PER_PAGE = 1_000;

interface Gap {
  readonly ms: number;
  /** When it began, since the signal. */
  readonly atMs: number;
}

export interface RestartReport {
  readonly member: string;
  readonly wasLeader: boolean;
  /** Another member was asked to take leadership over: nobody waited for an election timeout. */
  readonly handedOver: boolean;
  /** From the signal until it is ready again. */
  readonly tookMs: number;
  /** From the signal until the process had ended. */
  readonly endedMs: number;
  /** Times without an acknowledgement of more than `GAP_MS`, longest first. */
  readonly gaps: readonly Gap[];
  readonly longestMs: number;
}

export interface RollingReport {
  readonly requests: number;
  readonly retries: number;
  /** Not acknowledged within their limit. */
  readonly late: readonly string[];
  /** Acknowledged, and not there afterwards. */
  readonly lost: readonly string[];
  /** Longest time without an acknowledgement while nothing was restarted. */
  readonly calmMs: number;
  readonly restarts: readonly RestartReport[];
}

export async function rollingRestart(
  rounds: number,
  clients: number,
  calmMs: number = CALM_MS,
): Promise<RollingReport> {
  const cluster = await RealCluster.start({
    args: ["--concurrency", "0", "--log-format", "json", "--drain", "5s"],
  });
  try {
    return await restartUnderLoad(cluster, rounds, clients, calmMs);
  } finally {
    await cluster.stop();
  }
}

async function restartUnderLoad(
  cluster: RealCluster,
  rounds: number,
  clients: number,
  calmFor: number,
): Promise<RollingReport> {
  const acknowledged = new Set<string>();
  const ackedAt: number[] = [];
  const late: string[] = [];
  let retries = 0;
  const stop = new AbortController();

  /** One request at a time, at one member after the other; the same id until it is acknowledged. */
  const client = async (first: number): Promise<void> => {
    for (let at = first; !stop.signal.aborted; at++) {
      const id = Bun.randomUUIDv7();
      const startedAt = performance.now();
      for (let tries = 0; ; tries++) {
        const member = cluster.member((at + tries) % cluster.members.length);
        if (await submitted(member, id, LIMIT_MS - (performance.now() - startedAt))) {
          acknowledged.add(id);
          ackedAt.push(performance.now());
          break;
        }
        retries += 1;
        if (performance.now() - startedAt >= LIMIT_MS) {
          late.push(id);
          break;
        }
        await Bun.sleep(5);
      }
    }
  };
  const load = Array.from({ length: clients }, (_, n) => client(n));
  await eventually("the load to run", async () => acknowledged.size > 100);

  const calmFrom = performance.now();
  await Bun.sleep(calmFor);
  const calmMs = gapsIn(ackedAt, calmFrom, performance.now())[0]?.ms ?? calmFor;

  const restarts: RestartReport[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const member of cluster.members) {
      const { role } = await member.json<ClusterView>("/api/cluster?consistency=stale");
      const others = cluster.members.filter((other) => other !== member);
      const before = await takeovers(others);
      const from = performance.now();
      await member.kill("SIGTERM");
      const ended = performance.now();
      const handedOver = (await takeovers(others)) > before;
      await member.start();
      await eventually(`${member.id} to be ready`, async () => {
        const response = await member.fetch("/health/ready").catch(() => null);
        return response?.status === 200;
      });
      const to = performance.now();
      await Bun.sleep(PAUSE_BETWEEN_MS);
      const restart = report(member, role === "leader", { from, ended, to }, ackedAt);
      restarts.push({ ...restart, handedOver });
    }
  }
  stop.abort();
  await Promise.all(load);
  const there = await allTasks(cluster.member(0));
  const lost = [...acknowledged].filter((id) => !there.has(id));
  return { requests: acknowledged.size + late.length, retries, late, lost, calmMs, restarts };
}

/** Elections for which these members stood because leadership was handed to them. */
async function takeovers(members: readonly Member[]): Promise<number> {
  let sum = 0;
  for (const member of members) {
    const text = await (await member.fetch("/metrics")).text();
    sum += Number(/^flotilla_raft_elections_total\{reason="transfer"\} (.*)$/m.exec(text)?.[1]);
  }
  return sum;
}

async function submitted(member: Member, id: string, leftMs: number): Promise<boolean> {
  try {
    const response = await member.fetch("/api/tasks", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ id, name: "echo" }),
      signal: AbortSignal.timeout(Math.max(1, leftMs)),
    });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    return false;
  }
}

function report(
  { id }: Member,
  wasLeader: boolean,
  { from, ended, to }: { readonly from: number; readonly ended: number; readonly to: number },
  ackedAt: readonly number[],
): Omit<RestartReport, "handedOver"> {
  const sorted = gapsIn(ackedAt, from, to + PAUSE_BETWEEN_MS);
  return {
    member: id,
    wasLeader,
    endedMs: ended - from,
    tookMs: to - from,
    gaps: sorted.filter(({ ms }) => ms > GAP_MS),
    longestMs: sorted[0]?.ms ?? Number.POSITIVE_INFINITY,
  };
}

/** Between one acknowledgement and the next, longest first. */
function gapsIn(ackedAt: readonly number[], from: number, to: number): readonly Gap[] {
  const moments = ackedAt.filter((at) => at >= from && at <= to);
  const gaps = moments.map((at, index) => {
    const before = moments[index - 1] ?? from;
    return { ms: at - before, atMs: before - from };
  });
  return gaps.toSorted((a, b) => b.ms - a.ms);
}

async function allTasks(member: Member): Promise<Set<string>> {
  const found = new Set<string>();
  let path: string | null = `/api/tasks?limit=${TASKS_PER_PAGE}`;
  while (path !== null) {
    const response: Response = await member.fetch(path);
    for (const { id } of (await response.json()) as TaskJson[]) found.add(id);
    path = /<([^>]*)>; rel="next"/.exec(response.headers.get("link") ?? "")?.[1] ?? null;
    if (path !== null && /^https?:/.test(path)) path = path.slice(new URL(path).origin.length);
  }
  return found;
}

export function format(found: RollingReport): string {
  const { requests, retries, late, lost, calmMs, restarts } = found;
  const lines = restarts.map(
    ({ member, wasLeader, endedMs, tookMs, gaps, longestMs }) =>
      `${member}${wasLeader ? " (leader)" : ""}: ended after ${endedMs.toFixed(0)} ms, ready again after ${tookMs.toFixed(0)} ms; ` +
      `longest time without an acknowledgement ${longestMs.toFixed(0)} ms` +
      (gaps.length === 0
        ? ""
        : `; over ${GAP_MS} ms: ${gaps.map(({ ms, atMs }) => `${ms.toFixed(0)} (at ${atMs.toFixed(0)})`).join(", ")}`),
  );
  const sum = `${requests} requests, ${retries} retries, ${late.length} too late, ${lost.length} lost`;
  const calm = `without a restart: longest time without an acknowledgement ${calmMs.toFixed(0)} ms`;
  return [calm, ...lines, sum].join("\n");
}

async function main(): Promise<never> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "1" },
      clients: { type: "string", default: "8" },
    },
  });
  const found = await rollingRestart(Number(values.rounds), Number(values.clients));
  process.stdout.write(`${format(found)}\n`);
  process.exit(found.late.length + found.lost.length === 0 ? 0 : 1);
}

// Not awaited here: tests import this file, and run in the order of their imports.
if (import.meta.main) void main();
