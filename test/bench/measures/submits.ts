/** Acknowledged submits: one a request over plain HTTP, through the client library, in batches. */
import { FlotillaClient } from "../../../src/client/index.ts";
import { type Bench, closeAll } from "../bench.ts";
import { closedLoop } from "../load.ts";
import { payloadText, submitMany, submitOne } from "../tasks.ts";

const WARM_MS = 1_000;
const BATCH = 100;
/** Larger payloads come in smaller batches: a request may have 8 MiB. */
const BATCH_BYTES_MAX = 1024 * 1024;

export function batchOf(payload: number): number {
  return Math.max(1, Math.min(BATCH, Math.floor(BATCH_BYTES_MAX / Math.max(1, payload))));
}

export async function submitsByHttp(
  bench: Bench,
  callerCounts: readonly number[] = [1, 16, 64, 256],
): Promise<void> {
  const { sizes, setup } = bench;
  for (const callers of callerCounts) {
    const connections = await bench.connections(callers);
    const one = async (caller: number): Promise<boolean> => {
      const connection = connections[caller];
      return connection !== undefined && submitOne(connection, setup.payload);
    };
    await closedLoop(callers, WARM_MS, one);
    await bench.repeat(`submit, plain HTTP, ${callers} callers`, {}, () =>
      closedLoop(callers, sizes.seconds * 1_000, one),
    );
    closeAll(connections);
  }
}

/** Each caller awaits its own `enqueue`; the client gathers what comes together. */
export async function submitsByClient(bench: Bench): Promise<void> {
  const { sizes, setup, cluster } = bench;
  const leader = await cluster.leader();
  const client = new FlotillaClient({ urls: leader.url });
  for (const callers of [1, 64]) {
    const one = async (): Promise<boolean> => {
      // A string, as the members see it: the client must not be spared the work of serialising.
      await client.enqueue("bench", payloadText(setup.payload));
      return true;
    };
    await closedLoop(callers, WARM_MS, one);
    await bench.repeat(`submit, client library, ${callers} callers`, {}, () =>
      closedLoop(callers, sizes.seconds * 1_000, one),
    );
  }
  client.close();
}

export async function submitsInBatches(
  bench: Bench,
  callerCounts: readonly number[] = [1, 8],
): Promise<void> {
  const { sizes, setup } = bench;
  const batch = batchOf(setup.payload);
  for (const callers of callerCounts) {
    const connections = await bench.connections(callers);
    const one = async (caller: number): Promise<boolean> => {
      const connection = connections[caller];
      return connection !== undefined && submitMany(connection, batch, setup.payload);
    };
    await closedLoop(callers, WARM_MS, one);
    await bench.repeat(`submit, batches of ${batch}, ${callers} callers`, { perCall: batch }, () =>
      closedLoop(callers, sizes.seconds * 1_000, one),
    );
    closeAll(connections);
  }
}
