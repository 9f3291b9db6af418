/**
 * This queue as a module for a harness of other systems: the exports that such a harness calls, by name. A task's payload is
 * the string that it gives; submits go through the client library, as with the others' own clients.
 *
 * FLOTILLA_BENCH_VIA=http submits by plain HTTP, one request each, over keep-alive connections.
 */
import { FlotillaClient, FlotillaWorker } from "../../src/client/index.ts";
import { BenchCluster } from "./cluster.ts";
import { HttpConnection } from "./http-connection.ts";

/** What a second process needs to reach the members. */
interface Reach {
  readonly urls: readonly string[];
  readonly leader: string;
}

interface Workers {
  stop(): Promise<void>;
}

const NAME = "bench";

/** Connections that are not in use, for submits by plain HTTP. */
class Pool {
  readonly #idle: HttpConnection[] = [];

  constructor(readonly url: string) {}

  async with<T>(run: (connection: HttpConnection) => Promise<T>): Promise<T> {
    const connection = this.#idle.pop() ?? (await HttpConnection.open(this.url));
    const answer = await run(connection);
    this.#idle.push(connection);
    return answer;
  }

  close(): void {
    for (const connection of this.#idle.splice(0)) connection.close();
  }
}

export function createSystem(members: number) {
  const viaHttp = process.env.FLOTILLA_BENCH_VIA === "http";
  let cluster: BenchCluster | null = null;
  let client: FlotillaClient | null = null;
  let pool: Pool | null = null;
  let readId: string | null = null;

  const connected = (): FlotillaClient => {
    if (client === null) throw new Error("not attached");
    return client;
  };
  const running = (): BenchCluster => {
    if (cluster === null) throw new Error("not started");
    return cluster;
  };
  /** The leader first: whoever asks another member pays for one hop more. */
  const attach = async ({ urls, leader }: Reach): Promise<void> => {
    client?.close();
    pool?.close();
    client = new FlotillaClient({ urls: [leader, ...urls.filter((url) => url !== leader)] });
    pool = new Pool(leader);
  };
  const post = async (path: string, body: string): Promise<void> => {
    if (pool === null) throw new Error("not attached");
    const { status } = await pool.with((connection) => connection.post(path, body));
    if (status !== 201) throw new Error(`HTTP ${status}`);
  };
  const taskText = (payload: string): string =>
    `{"name":"${NAME}","payload":${JSON.stringify(payload)}}`;

  return {
    name: members === 1 ? "flotilla-one" : "flotilla",
    settings: `${members === 1 ? "1 member" : `${members} members`}, every acknowledgement fsynced ${members === 1 ? "" : "on a majority"}; ${viaHttp ? "plain HTTP, one request a submit" : "its client library"}`,
    nodes: members,
    queue: true,

    start: async (): Promise<Reach & Record<string, unknown>> => {
      cluster = await BenchCluster.start({ members });
      const reach = { urls: cluster.urls, leader: (await cluster.leader()).url };
      await attach(reach);
      return reach;
    },
    attach,
    submit: async (payload: string): Promise<void> => {
      if (viaHttp) await post("/api/tasks", taskText(payload));
      else await connected().enqueue(NAME, payload);
    },
    submitBatch: async (payloads: readonly string[]): Promise<void> => {
      if (viaHttp) await post("/api/tasks/bulk", `{"tasks":[${payloads.map(taskText).join(",")}]}`);
      else await connected().enqueueMany(payloads.map((payload) => ({ name: NAME, payload })));
    },
    /** One linearizable read of a task. */
    read: async (): Promise<void> => {
      if (readId !== null && (await connected().get(readId)) !== null) return;
      readId = (await connected().enqueue("read", "x")).id;
    },
    runWorkers: async (
      concurrency: number,
      onTask: (payload: string) => void,
      onDone: () => void,
    ): Promise<Workers> => {
      const worker = new FlotillaWorker({
        client: connected(),
        concurrency,
        handlers: { [NAME]: (payload: unknown) => onTask(payload as string) },
        onReported: () => onDone(),
      });
      worker.start();
      return { stop: () => worker.stop({ drainMs: 1_000 }) };
    },
    killLeader: async (): Promise<string> => {
      const leader = await running().leader();
      running().kill(leader);
      return `${leader.id} (Raft leader, and the member that the client asks)`;
    },
    purge: async (): Promise<void> => {
      await running().clear();
    },
    pids: (): Record<string, number> => cluster?.pids ?? {},
    stop: async (): Promise<void> => {
      client?.close();
      pool?.close();
      await cluster?.stop();
      cluster = null;
    },
  };
}
