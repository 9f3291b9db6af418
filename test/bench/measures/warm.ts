/** Load before the first figure, of which nothing is kept: a member's first requests run code that is not compiled yet. */
import { type Bench, closeAll } from "../bench.ts";
import { closedLoop } from "../load.ts";
import { submitMany, submitOne } from "../tasks.ts";

const CALLERS = 16;
const BATCH = 100;

/** For half of `seconds` many callers, for a quarter a lone one, for a quarter batches. */
export async function warmUp(bench: Bench, seconds: number): Promise<void> {
  const { payload } = bench.setup;
  const connections = await bench.connections(CALLERS);
  const load = async (
    callers: number,
    share: number,
    one: (connection: (typeof connections)[number]) => Promise<boolean>,
  ): Promise<void> => {
    await closedLoop(callers, seconds * share * 1_000, async (caller) => {
      const connection = connections[caller];
      return connection !== undefined && one(connection);
    });
  };
  await load(2, 0.25, (connection) => submitMany(connection, BATCH, payload));
  await load(CALLERS, 0.5, (connection) => submitOne(connection, payload));
  await load(1, 0.25, (connection) => submitOne(connection, payload));
  closeAll(connections);
  await bench.clear();
}
