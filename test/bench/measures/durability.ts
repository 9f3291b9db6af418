/** The proof that an acknowledgement is on disk on a majority: syncs seen from outside. */
import { type Bench, closeAll } from "../bench.ts";
import { fewestMembersSynced, FsyncWatch, whyNoCounts } from "../fsyncs.ts";
import { closedLoop } from "../load.ts";
import { now, spread } from "../statistics.ts";
import { submitOne } from "../tasks.ts";

const LONE_SUBMITS = 30;
const PAUSE_MS = 50;
const CALLERS = 64;
const LOAD_MS = 2_000;

export async function durability(bench: Bench): Promise<void> {
  const why = whyNoCounts();
  if (why !== null) {
    console.error(why);
    return;
  }
  const { cluster, setup } = bench;
  await bench.clear();
  const [connection] = await bench.connections(1);
  if (connection === undefined) return;
  const windows: { from: number; to: number }[] = [];
  const lone = await FsyncWatch.start(cluster.pids);
  for (let i = 0; i < LONE_SUBMITS; i++) {
    const from = now();
    if (await submitOne(connection, setup.payload)) windows.push({ from, to: now() });
    await Bun.sleep(PAUSE_MS);
  }
  connection.close();
  const fewest = fewestMembersSynced(await lone.stop(), windows);
  bench.record({
    measure: "members that finished an fsync between a lone submit and its 201",
    unit: "members",
    value: spread([fewest]),
    note: `the fewest over ${windows.length} submits`,
  });

  const connections = await bench.connections(CALLERS);
  const watch = await FsyncWatch.start(cluster.pids);
  const load = await closedLoop(CALLERS, LOAD_MS, async (caller) => {
    const own = connections[caller];
    return own !== undefined && submitOne(own, setup.payload);
  });
  const syncs = await watch.stop();
  closeAll(connections);
  const counts = Object.entries(syncs).map(([id, own]) => `${id} ${own.length}`);
  const total = Object.values(syncs).reduce((sum, own) => sum + own.length, 0);
  bench.record({
    measure: `fsyncs per acknowledged submit, ${CALLERS} callers, all members`,
    unit: "per task",
    value: spread([total / Math.max(1, load.ok)]),
    note: `${load.ok} acknowledged under strace; fsync and fdatasync: ${counts.join(", ")}`,
  });
}
