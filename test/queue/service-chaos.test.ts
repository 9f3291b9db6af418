import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { LeaseEnd, LeaseRef } from "../../src/queue/types.ts";
import { Cluster } from "./fake-consensus.ts";
import { NO_DELAY } from "./machine-harness.ts";
import { claimOf, context, PRINCIPAL, task } from "./service-harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const CHAOS_MS = 60_000;
const MEMBERS = 3;

interface Worker {
  readonly id: string;
  readonly index: number;
}

interface Run {
  readonly cluster: Cluster;
  /** False once faults are over: workers behave, and stop when everything has ended. */
  wild: boolean;
  over: boolean;
  readonly acknowledged: Set<string>;
  /** Fences handed to a worker, and to which request. */
  readonly handed: Map<number, string>;
  /** Fences whose completion was answered ok, by task. */
  readonly completed: Map<string, Set<number>>;
}

const sleep = (run: Run, ms: number): Promise<void> =>
  new Promise((resolve) => {
    run.cluster.member(0).clock.after(ms, resolve);
  });

/** Claims, works, and ends or fails to end, as badly as real workers do. */
async function work(run: Run, worker: Worker): Promise<void> {
  const { prng } = run.cluster.world;
  while (!run.over) {
    const { queue } = run.cluster.member(prng.between(0, MEMBERS - 1));
    const gone = new AbortController();
    if (run.wild && prng.chance(0.2))
      void sleep(run, prng.between(1, 300)).then(() => gone.abort());
    const claim = claimOf(worker.id, { max: prng.between(1, 4) });
    const answer = await queue
      .claim(claim, prng.between(100, 3_000), gone.signal)
      .catch(() => null);
    if (answer === null) {
      await sleep(run, 100);
      continue;
    }
    for (const { id, lease } of answer.tasks) {
      const known = run.handed.get(lease.fence);
      expect([lease.fence, known ?? claim.request_id]).toEqual([lease.fence, claim.request_id]);
      run.handed.set(lease.fence, claim.request_id);
      const ref = { task_id: id, attempt: lease.attempt, fence: lease.fence };
      // A worker that dies leaves its tasks to their leases.
      if (run.wild && prng.chance(0.1)) continue;
      await sleep(run, prng.between(0, 50));
      if (prng.chance(0.3)) await queue.heartbeat(worker.id, PRINCIPAL, [ref]).catch(() => null);
      await endOne(run, worker, ref);
    }
  }
}

async function endOne(run: Run, worker: Worker, ref: LeaseRef): Promise<void> {
  const { prng } = run.cluster.world;
  const end: LeaseEnd =
    run.wild && prng.chance(0.2)
      ? prng.pick<LeaseEnd>([
          { kind: "release" },
          { kind: "snooze", delay_ms: 500 },
          {
            kind: "fail",
            error: { type: "Error", message: "no", stack: null, retryable: true },
            retry_after_ms: prng.between(0, 1_000),
            crashed: false,
          },
        ])
      : { kind: "complete", result: "1" };
  for (let attempt = 0; attempt < 20; attempt++) {
    const { queue } = run.cluster.member(prng.between(0, MEMBERS - 1));
    const answers = await queue
      .end(worker.id, PRINCIPAL, [{ ...ref, end }], null)
      .catch(() => null);
    if (answers === null) {
      await sleep(run, 200);
      continue;
    }
    if (answers[0] === "ok" && end.kind === "complete") {
      const fences = run.completed.get(ref.task_id) ?? new Set<number>();
      run.completed.set(ref.task_id, fences.add(ref.fence));
    }
    return;
  }
}

async function submitting(run: Run): Promise<void> {
  const { prng } = run.cluster.world;
  while (run.wild) {
    const tasks = Array.from({ length: prng.between(1, 5) }, () =>
      task({
        queue: prng.pick(["default", "mail"]),
        name: prng.pick(["a", "b"]),
        max_retries: 100,
        retry: NO_DELAY,
        timeout_ms: null,
        run_at: prng.chance(0.2) ? 1_800_000_000_000 + run.cluster.world.now + 1_000 : null,
      }),
    );
    const { queue } = run.cluster.member(prng.between(0, MEMBERS - 1));
    void queue.submit(tasks, context).then(
      ({ ids }) => ids.forEach((id) => run.acknowledged.add(id)),
      () => null,
    );
    await sleep(run, prng.between(20, 400));
  }
}

async function faults({ cluster }: Run): Promise<void> {
  const { prng } = cluster.world;
  const end = cluster.world.now + CHAOS_MS;
  while (cluster.world.now < end) {
    await cluster.run(prng.between(100, 4_000));
    const follower = cluster.members.find((member) => !member.leads && prng.chance(0.5));
    switch (prng.between(0, 3)) {
      case 0:
        cluster.depose();
        await cluster.run(prng.between(10, 2_000));
        await cluster.elect(prng.between(0, MEMBERS - 1));
        break;
      case 1:
        cluster.quorum = false;
        await cluster.run(prng.between(10, 3_000));
        cluster.quorum = true;
        break;
      case 2:
        if (follower !== undefined) follower.cut = true;
        await cluster.run(prng.between(10, 5_000));
        if (follower !== undefined) follower.cut = false;
        break;
      default:
        await cluster.elect(prng.between(0, MEMBERS - 1));
    }
  }
}

describe("workers, elections and faults at random", () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test(`seed ${seed}: every acknowledged task is completed exactly once, and nothing waits for ever`, async () => {
      const cluster = new Cluster(MEMBERS, {}, seed);
      await cluster.elect(0);
      await cluster.settled(
        cluster.member(0).queue.updateSettings({ lease: 3_000, max_crashes: 1_000 }, context),
      );
      const run: Run = {
        cluster,
        wild: true,
        over: false,
        acknowledged: new Set(),
        handed: new Map(),
        completed: new Map(),
      };
      const workers = Array.from({ length: 12 }, (_, index) =>
        work(run, { id: `w${index}`, index }),
      );
      void submitting(run);
      await faults(run);
      run.wild = false;
      cluster.quorum = true;
      for (const member of cluster.members) member.cut = false;
      await cluster.elect(seed % MEMBERS);
      // Silent leases expire, retries come due, and everything is worked off.
      await cluster.run(60_000);
      run.over = true;
      await cluster.settled(Promise.all(workers), 60_000);
      await cluster.run(5_000);

      const { machine } = cluster.member(0);
      expect(run.acknowledged.size).toBeGreaterThan(100);
      for (const id of run.acknowledged) expect(machine.task(id)?.status).toBe("Completed");
      for (const [id, fences] of run.completed) expect([id, fences.size]).toEqual([id, 1]);
      expect(machine.counts()).toMatchObject({ Pending: 0, Running: 0 });
      const hashes = new Set(cluster.members.map((member) => member.machine.hash()));
      expect(hashes.size).toBe(1);
      for (const { queue } of cluster.members)
        expect(queue.waiting()).toEqual({ claims: 0, finals: 0, reports: 0, offers: 0, leases: 0 });
    });
  }
});
