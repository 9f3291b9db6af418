/** kill -9 of the leader under a steady load: the longest silence between two acknowledgements. */
import { FlotillaClient } from "../../../src/client/index.ts";
import type { Bench } from "../bench.ts";
import { BenchCluster } from "../cluster.ts";
import { closedLoop, openLoop } from "../load.ts";
import { spread } from "../statistics.ts";
import { payloadText } from "../tasks.ts";

const RATE = 200;
const WARM_MS = 1_000;

/** Each trial has a cluster of its own, for the killed one does not come back. */
export async function failover(bench: Bench): Promise<void> {
  const { setup, sizes } = bench;
  if (setup.members < 3) return;
  const gaps: number[] = [];
  const notes: string[] = [];
  for (let trial = 0; trial < sizes.trials; trial++) {
    const cluster = await BenchCluster.start(setup);
    try {
      const { gapMs, note } = await kill(cluster, setup.payload, sizes.failoverSeconds * 1_000);
      gaps.push(gapMs);
      notes.push(note);
    } finally {
      await cluster.stop();
    }
  }
  bench.record({
    measure: `longest silence after kill -9 of the leader at ${RATE}/s, client library`,
    unit: "ms",
    value: spread(gaps),
    note: notes.join("; "),
  });
}

async function kill(cluster: BenchCluster, bytes: number, ms: number) {
  const client = new FlotillaClient({ urls: cluster.urls });
  const acknowledged = new Set<string>();
  const one = async (): Promise<boolean> => {
    const { id } = await client.enqueue("bench", payloadText(bytes));
    acknowledged.add(id);
    return true;
  };
  await closedLoop(8, WARM_MS, one);
  const leader = await cluster.leader();
  // The client talks to the one that dies: it has to find out by itself, too.
  let killedAt = 0;
  const timer = setTimeout(() => {
    killedAt = performance.now();
    cluster.kill(leader);
  }, ms / 4);
  const load = await openLoop(RATE, ms, one, { keepTimes: true });
  clearTimeout(timer);
  const endedAt = performance.now();
  const times = [...load.answeredAt].sort((a, b) => a - b);
  let gapMs = 0;
  for (const [i, at] of times.entries()) gapMs = Math.max(gapMs, at - (times[i - 1] ?? at));
  const last = times.at(-1);
  if (last === undefined || last < killedAt) gapMs = endedAt - killedAt;
  const lost = await missing(client, acknowledged);
  client.close();
  const note = `${gapMs.toFixed(0)} ms, ${load.failed + load.unanswered} of ${load.ok + load.failed + load.unanswered} failed, ${lost} of ${acknowledged.size} acknowledged lost`;
  return { gapMs, note };
}

/** How many of the acknowledged are not in the queue. */
async function missing(client: FlotillaClient, acknowledged: ReadonlySet<string>): Promise<number> {
  let found = 0;
  for await (const { id } of client.list({ page_size: 1_000 })) if (acknowledged.has(id)) found++;
  return acknowledged.size - found;
}
