/**
 * Twice of what the members can take is asked of them for some seconds: they have to refuse the rest at once, keep taking what they can,
 * keep their leader and their memory, and work the backlog off at full speed afterwards.
 */
import { type Bench, closeAll } from "../bench.ts";
import { Histogram } from "../histogram.ts";
import { HttpConnection, openConnections } from "../http-connection.ts";
import { closedLoop, openLoop } from "../load.ts";
import { memoryOf, watchCpu } from "../processes.ts";
import { spread } from "../statistics.ts";
import { bulkText, MINIMAL, submitMany, submitOne, taskText } from "../tasks.ts";
import { OutsideWorkers } from "../workers.ts";

/** Tasks in a request, and callers for the maximum. */
const KINDS = [
  { perCall: 1, callers: 256, how: "plain HTTP" },
  { perCall: 100, callers: 32, how: "batches of 100" },
] as const;
/**
 * Requests that may be under way at once; beyond, a caller would be waiting for a connection, which is no load. Fewer than the file
 * descriptors that a process often may have.
 */
const CONNECTIONS = 16_000;
/** Callers of the crowd at the leader; refused ones come again after some milliseconds. */
const CROWD = 8_000;
/** At all members together: as many as there can be, and as many as for the maximum. */
const CROWDS_OF_ALL = [768, 18_000];
const OVERLOAD_S = 10;
const FACTOR = 2;
const DRAIN_MS = 300_000;
const WORKER_CONCURRENCY = 50;

export async function overload(bench: Bench): Promise<void> {
  for (const kind of KINDS) await overloadBy(bench, kind);
  const { cluster } = bench;
  await crowd(bench, [(await cluster.leader()).url], CROWD, "plain HTTP");
  if (cluster.urls.length === 1) return;
  for (const callers of CROWDS_OF_ALL)
    await crowd(bench, cluster.urls, callers, "plain HTTP, at all members");
}

async function crowd(
  bench: Bench,
  urls: readonly string[],
  callers: number,
  how: string,
): Promise<void> {
  const { setup, sizes } = bench;
  await bench.clear();
  const each = await Promise.all(
    urls.map((url) => openConnections(url, Math.floor(callers / urls.length))),
  );
  const connections = each.flat();
  await bench.repeat(`overload: ${callers} callers, ${how}, refused ones ask again`, {}, () =>
    closedLoop(connections.length, sizes.seconds * 1_000, async (caller) => {
      const own = connections[caller];
      return own !== undefined && submitOne(own, setup.payload);
    }),
  );
  closeAll(connections);
}

async function overloadBy(
  bench: Bench,
  { perCall, callers, how }: (typeof KINDS)[number],
): Promise<void> {
  const { cluster, setup } = bench;
  await bench.clear();
  const connections = await bench.connections(callers);
  const maximum = await bench.repeat(
    `overload: the maximum, ${how}, ${callers} callers`,
    { perCall },
    () =>
      closedLoop(callers, bench.sizes.seconds * 1_000, async (caller) => {
        const own = connections[caller];
        if (own === undefined) return false;
        return perCall === 1
          ? submitOne(own, setup.payload)
          : submitMany(own, perCall, setup.payload);
      }),
  );
  closeAll(connections);
  await bench.clear();

  const before = await cluster.view();
  const rss = (): number[] => Object.values(cluster.pids).map((pid) => memoryOf(pid).rss);
  const rssBefore = rss();
  const idle: HttpConnection[] = [];
  let opened = 0;
  let noConnection = 0;
  const refusals = new Map<number, number>();
  const refusalMs = new Histogram();
  const leader = await cluster.leader();
  const { url } = leader;
  const one = async (): Promise<boolean> => {
    let connection = idle.pop();
    if (connection === undefined) {
      if (opened >= CONNECTIONS) {
        noConnection += 1;
        return false;
      }
      opened += 1;
      connection = await HttpConnection.open(url);
    }
    const from = performance.now();
    const { status } = await (perCall === 1
      ? connection.post("/api/tasks", taskText(setup.payload))
      : connection.post("/api/tasks/bulk", bulkText(perCall, setup.payload), { headers: MINIMAL }));
    idle.push(connection);
    if (status === 201) return true;
    refusals.set(status, (refusals.get(status) ?? 0) + 1);
    refusalMs.record(performance.now() - from);
    return false;
  };
  const stop = watchCpu(cluster.pids);
  const load = await openLoop((maximum * FACTOR) / perCall, OVERLOAD_S * 1_000, one);
  const cpu = stop();
  const rate = (load.ok * perCall) / load.seconds;
  closeAll(idle);
  const after = await cluster.view();
  const rssAfter = rss();
  const counts = [...refusals].map(([status, n]) => `${n} × ${status}`).join(", ");
  bench.record({
    measure: `overload: acknowledged while ${FACTOR} × the maximum is asked for, ${how}`,
    unit: "tasks/s",
    value: spread([rate]),
    p50: load.latencies.percentile(50),
    p99: load.latencies.percentile(99),
    cpu,
    note: [
      `${((100 * rate) / maximum).toFixed(0)} % of the maximum`,
      counts === ""
        ? "none refused"
        : `refused: ${counts}, p50 ${refusalMs.percentile(50).toFixed(1)}, p99 ${refusalMs.percentile(99).toFixed(1)} ms`,
      `${noConnection} not sent for want of a connection`,
      `${opened} connections`,
      `the leader used ${(cpu.byMember[leader.id] ?? 0).toFixed(2)} cores`,
      `terms passed: ${after.term - before.term}`,
      `members grew by ${rssAfter.map((now, i) => (now - (rssBefore[i] ?? 0)).toFixed(0)).join(", ")} MiB`,
    ].join("; "),
  });

  const { Pending } = await cluster.counts();
  const workers = await OutsideWorkers.start([url], WORKER_CONCURRENCY);
  await workers.arm(Pending);
  const from = performance.now();
  await workers.reached(DRAIN_MS);
  bench.record({
    measure: `overload: the backlog of ${Pending.toLocaleString("en-US")} is worked off by a worker outside`,
    unit: "tasks/s",
    value: spread([Pending / ((performance.now() - from) / 1_000)]),
  });
  await workers.stop();
}
