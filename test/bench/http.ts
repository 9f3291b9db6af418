/**
 * What a request costs in the HTTP layer alone: the API over a queue that answers at once, in a process of its own, asked
 * by keep-alive connections. CPU of the server per request, so that it can be compared while others are at work.
 *
 *     bun run test/bench/http.ts [--seconds N] [--callers N] [--against CHECKOUT] [ROUTE…]
 *
 * `--against`: another checkout of this project, asked by turns with this one, so that the two can be compared.
 *
 * With BENCH_PROFILES the server leaves a CPU profile in that folder. Floors: an answer from a bare `Bun.serve`
 * that reads the body (`bare`), and one that the runtime has ready and gives without running any code (`canned`).
 */
import { parseArgs } from "node:util";
import { closedLoop } from "./load.ts";
import { openConnections } from "./http-connection.ts";
import { watchCpu } from "./processes.ts";
import { bulkText, taskText } from "./tasks.ts";

const BYTES = 200;
const COMPLETIONS = 50;
const TASK_ID = "019abcde-0000-7000-8000-000000000001";

export type Route = keyof typeof ROUTES;

interface Request {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body?: string;
  readonly headers?: string;
  /** Tasks in it. */
  readonly tasks?: number;
  /** That of the answer, where it is no success: 429 has the server refuse every submit. */
  readonly status?: number;
}

const ROUTES = {
  canned: { method: "POST", path: "/canned", body: taskText(BYTES), status: 429 },
  bare: { method: "POST", path: "/bare", body: taskText(BYTES) },
  submit: { method: "POST", path: "/api/tasks", body: taskText(BYTES) },
  refused: { method: "POST", path: "/api/tasks", body: taskText(BYTES), status: 429 },
  bulk: { method: "POST", path: "/api/tasks/bulk", body: bulkText(100, BYTES), tasks: 100 },
  minimal: {
    method: "POST",
    path: "/api/tasks/bulk",
    body: bulkText(100, BYTES),
    headers: "Prefer: return=minimal\r\n",
    tasks: 100,
  },
  get: { method: "GET", path: `/api/tasks/${TASK_ID}` },
  claim: {
    method: "POST",
    path: "/api/leases/claim",
    body: JSON.stringify({ worker_id: "w1", request_id: "r1", max: COMPLETIONS, wait_ms: 0 }),
    tasks: COMPLETIONS,
  },
  complete: {
    method: "POST",
    path: "/api/leases/complete",
    body: JSON.stringify({
      worker_id: "w1",
      items: Array.from({ length: COMPLETIONS }, (_, i) => ({
        task_id: TASK_ID.slice(0, -4) + String(1_000 + i),
        attempt: 1,
        fence: i + 1,
        result: { ok: true },
      })),
    }),
    tasks: COMPLETIONS,
  },
} as const satisfies Record<string, Request>;

/** The two are asked by turns so long, so that whatever disturbs the machine disturbs both. */
const SLICE_MS = 250;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "2" },
    callers: { type: "string", default: "32" },
    against: { type: "string" },
  },
});
const callers = Number(values.callers);
const names = (positionals.length > 0 ? positionals : Object.keys(ROUTES)) as Route[];
const servers = [await start(import.meta.dir)];
if (values.against !== undefined) servers.push(await start(`${values.against}/test/bench`));
for (const name of names) {
  const request: Request | undefined = ROUTES[name];
  if (request === undefined) throw new Error(`there is no route ${name}`);
  const loads = await Promise.all(servers.map((server) => prepare(server, request)));
  for (const load of loads) await load.slice(500);
  for (const load of loads) load.reset();
  const slices = Math.ceil((Number(values.seconds) * 1_000) / SLICE_MS);
  for (let i = 0; i < slices; i++) for (const load of loads) await load.slice(SLICE_MS);
  const { tasks = 1 } = request;
  const [here = Number.NaN, there] = loads.map((load) => load.usPerRequest());
  const each = tasks > 1 ? `, ${(here / tasks).toFixed(2)} µs a task` : "";
  const ratio =
    there === undefined
      ? ""
      : `; there ${there.toFixed(1)} µs: here it is ${(here / there).toFixed(2)} of that`;
  console.log(
    `${name.padEnd(9)} ${here.toFixed(1).padStart(8)} µs of CPU a request${each}${ratio}`,
  );
  for (const load of loads) load.close();
}
for (const { process: child } of servers) {
  child.kill("SIGTERM");
  await child.exited;
}

async function start(folder: string) {
  const { promise, resolve } = Promise.withResolvers<{ port: number }>();
  const profiles = process.env.BENCH_PROFILES;
  const child = Bun.spawn(
    [
      process.execPath,
      ...(profiles === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profiles}`]),
      `${folder}/http-server.ts`,
    ],
    {
      stdio: ["ignore", "inherit", "inherit"],
      ipc: (message: { port: number }) => resolve(message),
    },
  );
  return { process: child, port: (await promise).port };
}

async function prepare(server: Awaited<ReturnType<typeof start>>, request: Request) {
  const { method, path, body = "", headers = "", status: wanted } = request;
  const url = `http://127.0.0.1:${server.port}`;
  await fetch(`${url}/${wanted === 429 ? "overloaded" : "ready"}`, { method: "POST" });
  const connections = await openConnections(url, callers);
  let coreSeconds = 0;
  let answered = 0;
  const one = async (caller: number): Promise<boolean> => {
    const connection = connections[caller];
    if (connection === undefined) return false;
    const { status } = await (method === "GET"
      ? connection.get(path)
      : connection.post(path, body, { headers }));
    if (wanted === undefined ? status >= 300 : status !== wanted)
      throw new Error(`${path}: HTTP ${status}`);
    return true;
  };
  return {
    async slice(ms: number): Promise<void> {
      const stop = watchCpu({ server: server.process.pid });
      const load = await closedLoop(callers, ms, one);
      coreSeconds += stop().members * load.seconds;
      answered += load.ok;
      if (load.failed > 0) throw new Error(`${load.failed} requests failed`);
    },
    reset(): void {
      coreSeconds = 0;
      answered = 0;
    },
    usPerRequest: (): number => (coreSeconds * 1e6) / answered,
    close: (): void => {
      for (const connection of connections) connection.close();
    },
  };
}
