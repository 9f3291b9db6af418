import { expect, test } from "bun:test";
import { encodeCommand } from "../../src/queue/command-codec.ts";
import type { Millis } from "../../src/replica/ports.ts";
import { TaskCluster } from "../replica/task-cluster.ts";
import { newTask } from "./machine-harness.ts";
import { claimOf, context } from "./service-harness.ts";

/** As in every member of a TaskCluster. */
const LIMIT_MS: Millis = 5_000;
const DUE_MS: Millis = 25_000;

test("tasks become ready, attempts that ran too long end and leases expire while requests wait for longer than they may", async () => {
  const cluster = new TaskCluster(1, 1);
  await cluster.start();
  const { clock, machine, queue, replica } = cluster.node(0);
  if (machine === null || queue === null || replica === null) throw new Error("it is down");
  const [long = "", silent = "", later = ""] = [1, 2, 3].map(() =>
    cluster.world.prng.uuid(clock.wall()),
  );
  const tasks = [
    newTask(long, { timeout_ms: DUE_MS }),
    newTask(silent, { timeout_ms: null }),
    newTask(later, { run_at: clock.wall() + DUE_MS }),
  ];
  const claimed = queue
    .submit(tasks, context)
    .then(() => queue.claim(claimOf("w", { max: 2 }), LIMIT_MS, null));
  let running = 0;
  void claimed.then((claim) => (running = claim.tasks.length));
  await cluster.run(1_000, () => running > 0);
  expect(running).toBe(2);

  // More than its disk takes. The machine has nothing to do for them, and each has an entry of its own.
  cluster.node(0).diskMs = 250;
  const command = encodeCommand({ type: "purge", term: 0, max: 1 });
  let [answered, givenUp, mostWaiting] = [0, 0, 0];
  const isDone = (): boolean =>
    machine.running().length === 0 && machine.ready().get("default")?.get("work") === 3;
  const end = cluster.world.now + 3 * DUE_MS;
  while (cluster.world.now < end && !isDone()) {
    for (let i = 0; i < 2; i++)
      replica.submit(command, { timeoutMs: LIMIT_MS, weight: 2_000 }).then(
        () => (answered += 1),
        () => (givenUp += 1),
      );
    await cluster.run(200);
    mostWaiting = Math.max(mostWaiting, replica.waiting.own);
  }
  expect(answered).toBeGreaterThan(0);
  expect(givenUp).toBeGreaterThan(0);
  expect(isDone()).toBe(true);
  // The clients', and of the leader's own each once.
  expect(mostWaiting).toBeLessThan((2 * LIMIT_MS) / 200 + 10);
});
