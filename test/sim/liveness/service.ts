/** L4: every member of the core serves a write and a linearizable read. */
import { QueueError } from "../../../src/queue/service.ts";
import type { NewTask } from "../../../src/queue/types.ts";
import { DEFAULT_RETRY } from "../../../src/queue/types.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import { EPOCH } from "../world.ts";
import { describeCore } from "./core.ts";

const SERVE_MS: Millis = 5_000;

/** A write through this member is acknowledged, and read back, within seconds. */
export async function serves(sim: Simulation, node: SimNode): Promise<void> {
  let read = false;
  let task = probe(sim, node);
  let last = "nothing";
  void (async () => {
    while (!read && sim.failure === null && sim.core().includes(node)) {
      try {
        const since = sim.history.begin();
        const { ids } = await sim.call(node, (queue) =>
          queue.submit([task], { principal: "probe", idempotency: null }),
        );
        sim.history.submitted(ids, since, false);
        const before = sim.history.beginRead();
        const answer = await sim.call(node, (queue) => queue.get(task.id, "linearizable"));
        sim.history.read(task.id, answer.task, answer.read.appliedIndex, before);
        read = answer.task !== null;
        // A client has cleared it in between.
        if (!read) task = probe(sim, node);
      } catch (error) {
        last = String(error);
        await sim.sleep(50);
        // Cleared before it was read, or older than this member could know.
        const { reason = "" } = error instanceof QueueError ? error : {};
        if (reason === "id-conflict" || reason === "id-expired") task = probe(sim, node);
      }
    }
  })();
  const limitMs = SERVE_MS + sim.options.requestTimeoutMs;
  if (!(await sim.until(limitMs, () => read || !sim.core().includes(node))))
    sim.fail(
      "liveness L4",
      `${node.id} serves nothing within ${limitMs} ms: ${last}; ${describeCore(sim)}`,
    );
}

/** With an id of its own, as of log time, which may be hours ahead of the true one by right (`invariants/log-time.ts`). */
function probe(sim: Simulation, node: SimNode): NewTask {
  const { prng, now } = sim.world;
  const id = prng.uuid(Math.max(EPOCH + now, node.machine?.logTime() ?? 0));
  sim.history.asked.add(id);
  return {
    id,
    name: "stray",
    queue: "default",
    priority: 5,
    payload: null,
    max_retries: 3,
    run_at: null,
    timeout_ms: 60_000,
    retry: DEFAULT_RETRY,
    body_hash: prng.hex(8),
  };
}
