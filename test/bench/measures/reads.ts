/** Linearizable reads of one task, at the leader and at a follower. */
import { FlotillaClient } from "../../../src/client/index.ts";
import { type Bench, closeAll } from "../bench.ts";
import { openConnections } from "../http-connection.ts";
import { closedLoop } from "../load.ts";
import { payload } from "../tasks.ts";

const CALLERS = 64;
const WARM_MS = 500;

export async function linearizableReads(bench: Bench): Promise<void> {
  const { cluster, sizes, setup } = bench;
  await bench.between();
  const leader = await cluster.leader();
  const follower = await cluster.follower();
  const client = new FlotillaClient({ urls: leader.url });
  const { id } = await client.enqueue("bench", payload(setup.payload));
  client.close();
  for (const [role, member] of [
    ["leader", leader],
    ["follower", follower],
  ] as const) {
    if (member === null) continue;
    const connections = await openConnections(member.url, CALLERS);
    const one = async (caller: number): Promise<boolean> =>
      (await connections[caller]?.get(`/api/tasks/${id}`))?.status === 200;
    await closedLoop(CALLERS, WARM_MS, one);
    await bench.repeat(
      `linearizable reads of a task, ${role}, ${CALLERS} callers`,
      { unit: "reads/s", keep: true },
      () => closedLoop(CALLERS, sizes.seconds * 1_000, one),
    );
    closeAll(connections);
  }
}
