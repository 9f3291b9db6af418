import { describe, expect, test } from "bun:test";
import type { Change } from "../../src/queue/service.ts";
import { QueueError } from "../../src/queue/service.ts";
import type { IdempotencyScope } from "../../src/queue/types.ts";
import { FINAL_WAITERS_MAX } from "../../src/queue/final-waiters.ts";
import { Cluster, type Member } from "./fake-consensus.ts";
import { claimOf, context, PRINCIPAL, submitOne, task } from "./service-harness.ts";

async function cluster(size: number): Promise<Cluster> {
  const made = new Cluster(size);
  await made.elect(0);
  return made;
}

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    (value) => `no failure but ${JSON.stringify(value)}`,
    (error: unknown) => error,
  );

async function complete(made: Cluster, member: Member, worker = "w"): Promise<string> {
  const { tasks } = await made.settled(member.queue.claim(claimOf(worker), 5_000, null));
  const [claimed] = tasks;
  if (claimed === undefined) throw new Error("nothing was claimed");
  const { attempt, fence } = claimed.lease;
  const end = { kind: "complete", result: null } as const;
  await made.settled(
    member.queue.end(worker, PRINCIPAL, [{ task_id: claimed.id, attempt, fence, end }], null),
  );
  return claimed.id;
}

describe("a snapshot that takes the place of the state", () => {
  test("answers who waits for the end of a task that ended meanwhile", async () => {
    const made = await cluster(3);
    const behind = made.member(2);
    const id = await made.settled(submitOne(made.member(0)));
    const waiting = behind.queue.waitFinal(id, 60_000, null);
    await made.run(100);
    behind.cut = true;
    await made.settled(made.member(0).queue.cancel(id, context));
    await made.run(100);
    behind.install(made.member(0));
    behind.cut = false;
    expect((await made.settled(waiting, 5_000))?.status).toBe("Cancelled");
  });

  test("answers a claim that was served meanwhile, with what it got", async () => {
    const made = await cluster(3);
    const behind = made.member(2);
    const claimed = behind.queue.claim(claimOf("w"), 60_000, null);
    await made.run(100);
    behind.cut = true;
    const id = await made.settled(submitOne(made.member(0)));
    await made.run(1_000);
    expect(made.member(0).machine.task(id)?.status).toBe("Running");
    behind.install(made.member(0));
    behind.cut = false;
    const { tasks } = await made.settled(claimed, 5_000);
    expect(tasks.map((task) => task.id)).toEqual([id]);
  });
});

describe("writes and reads", () => {
  test("what one member acknowledged, a linearizable read at another one sees", async () => {
    const made = await cluster(3);
    for (let i = 0; i < 20; i++) {
      const id = await made.settled(submitOne(made.member(i % 3)));
      const { task: read, read: info } = await made.settled(
        made.member((i + 1) % 3).queue.get(id, "linearizable"),
      );
      expect(read?.id).toBe(id);
      expect(info.stalenessMs).toBe(0);
    }
    const { stats } = await made.settled(made.member(2).queue.stats("linearizable"));
    expect(stats.total_tasks).toBe(20);
    expect(stats.stats.Pending).toBe(20);
  });

  test("settings changed at one member are what a read at another one sees", async () => {
    const made = await cluster(3);
    for (let lease = 20_000; lease < 20_020; lease++) {
      await made.settled(made.member(lease % 3).queue.updateSettings({ lease }, context));
      const other = made.member((lease + 1) % 3).queue;
      const { settings } = await made.settled(other.readSettings("linearizable"));
      expect(settings.lease).toBe(lease);
    }
  });

  test("changes of settings at several members at once, to parts of one group, all count", async () => {
    const made = await cluster(3);
    const before = made.member(0).queue.settings();
    const changes = [
      { retention: { completed: 1_000 } },
      { retention: { cancelled: 2_000 } },
      { retention: { failed: 3_000 }, retry: { factor: 5 } },
      { retry: { initial_ms: 7, jitter: false } },
      { timeout_ms: null },
    ];
    const answers = await made.settled(
      Promise.all(
        changes.map((change, i) => made.member(i % 3).queue.updateSettings(change, context)),
      ),
    );
    const merged = {
      ...before,
      retention: { completed: 1_000, cancelled: 2_000, failed: 3_000 },
      retry: { ...before.retry, factor: 5, initial_ms: 7, jitter: false },
      timeout_ms: null,
    };
    expect(answers).toContainEqual(merged);
    await made.run(10);
    for (const { queue } of made.members) expect(queue.settings()).toEqual(merged);
  });

  test("a setting of a later machine version is refused in words until that is in force, and logged nowhere", async () => {
    const made = await cluster(3);
    const change = { lease: 20_000, log_tail: { max_bytes: 2_000_000 } };
    const { queue } = made.member(1);
    const before = queue.settings();
    expect(await made.settled(failure(queue.updateSettings(change, context)))).toMatchObject({
      reason: "machine-version",
      message:
        "log_tail is a setting from machine version 2 on, and the cluster runs 1: start every member with a build that applies 2, wait some 10 s until GET /api/cluster says that it is in force, and ask again",
    });
    expect(queue.settings()).toEqual(before);
  });

  test("a stale read answers from a member that is cut off, and says how old it is", async () => {
    const made = await cluster(2);
    const cut = made.member(1);
    const first = await made.settled(submitOne(cut));
    await made.run(10);
    cut.cut = true;
    const second = await made.settled(submitOne(made.member(0)));
    await made.run(5_000);
    expect((await made.settled(cut.queue.get(first, "stale"))).task?.id).toBe(first);
    const { task: missing, read } = await made.settled(cut.queue.get(second, "stale"));
    expect(missing).toBeNull();
    expect(read.stalenessMs).toBeGreaterThanOrEqual(5_000);
    expect(await made.settled(failure(cut.queue.get(second, "linearizable")))).toMatchObject({
      reason: "no-quorum",
      retryAfterMs: 1_000,
    });
  });

  test("refusals of the machine come as QueueErrors with their code", async () => {
    const made = await cluster(2);
    const { queue } = made.member(1);
    const unknown = "01234567-89ab-7000-8000-000000000000";
    expect(await made.settled(failure(queue.cancel(unknown, context)))).toMatchObject({
      name: "QueueError",
      reason: "not-found",
    });
    await made.settled(submitOne(made.member(1)));
    const id = await complete(made, made.member(1));
    expect(await made.settled(failure(queue.cancel(id, context)))).toMatchObject({
      reason: "already-final",
      taskId: id,
    });
    expect(await made.settled(failure(queue.retry(id, 1, context)))).toMatchObject({
      reason: "version-mismatch",
    });
    const again = task({ body_hash: "a" });
    await made.settled(queue.submit([again], context));
    expect((await made.settled(queue.submit([again], context))).existing).toBe(true);
    const other = { ...again, body_hash: "b" };
    expect(await made.settled(failure(queue.submit([other], context)))).toMatchObject({
      reason: "id-conflict",
    });
    await made.settled(queue.updateSettings({ max_waiting: 1 }, context));
    expect(await made.settled(failure(submitOne(made.member(1))))).toMatchObject({
      reason: "queue-full",
      retryAfterMs: 5_000,
    });
    expect(queue.settings().max_waiting).toBe(1);
  });

  test("an idempotency key answers the first outcome again and does nothing twice", async () => {
    const made = await cluster(2);
    const idempotency: IdempotencyScope = {
      principal: PRINCIPAL,
      route: "/t",
      key: "k",
      hash: "h",
    };
    const once = { principal: PRINCIPAL, idempotency };
    const first = await made.settled(made.member(0).queue.submit([task()], once));
    const second = await made.settled(made.member(1).queue.submit([task()], once));
    expect([first.replayed, second.replayed]).toEqual([false, true]);
    expect(second.ids).toEqual(first.ids);
    const mismatch = { ...once, idempotency: { ...idempotency, hash: "other" } };
    expect(
      await made.settled(failure(made.member(1).queue.submit([task()], mismatch))),
    ).toMatchObject({ reason: "idempotency-mismatch" });
    expect(made.member(0).machine.counts().Pending).toBe(1);
  });

  test("without a leader a write is refused; one that was sent and not answered is unknown", async () => {
    const made = await cluster(2);
    made.depose();
    expect(await made.settled(failure(submitOne(made.member(1))))).toMatchObject({
      reason: "no-leader",
    });
    await made.elect(0);
    made.quorum = false;
    expect(await made.settled(failure(submitOne(made.member(1))))).toMatchObject({
      reason: "outcome-unknown",
    });
  });

  test("aborting ends the wait and not the write", async () => {
    const made = await cluster(1);
    const gone = new AbortController();
    const submitted = failure(
      made.member(0).queue.submit([task()], { ...context, signal: gone.signal }),
    );
    gone.abort();
    expect(await made.settled(submitted)).toMatchObject({ reason: "outcome-unknown" });
    await made.run(20);
    expect(made.member(0).machine.counts().Pending).toBe(1);
  });

  test("low disk refuses submits and lets ends, cancels and clears through", async () => {
    let low = false;
    const made = new Cluster(1, { admission: () => (low ? "low-disk" : null) });
    await made.elect(0);
    const member = made.member(0);
    const id = await made.settled(submitOne(member));
    await made.settled(submitOne(member));
    low = true;
    expect(await made.settled(failure(submitOne(member)))).toMatchObject({ reason: "low-disk" });
    await made.settled(member.queue.cancel(id, context));
    await complete(made, member);
    expect(await made.settled(member.queue.clear(null, context))).toBe(2);
  });
});

describe("waiting for the end", () => {
  test("wakes at every member when the task ends", async () => {
    const made = await cluster(3);
    const id = await made.settled(submitOne(made.member(0)));
    const waits = made.members.map(({ queue }) => queue.waitFinal(id, 60_000, null));
    await made.run(1_000);
    await complete(made, made.member(1));
    const tasks = await made.settled(Promise.all(waits));
    expect(tasks.map((ended) => ended?.status)).toEqual(["Completed", "Completed", "Completed"]);
  });

  test("answers at once for what has ended and for what is unknown", async () => {
    const made = await cluster(1);
    const { queue } = made.member(0);
    await made.settled(submitOne(made.member(0)));
    const id = await complete(made, made.member(0));
    const before = made.world.now;
    expect((await made.settled(queue.waitFinal(id, 60_000, null)))?.status).toBe("Completed");
    expect(await made.settled(queue.waitFinal("nothing", 60_000, null))).toBeNull();
    expect(made.world.now - before).toBeLessThan(100);
  });

  test("gives the task as it is when the time is up or the caller leaves, and null when it is cleared", async () => {
    const made = await cluster(1);
    const { queue } = made.member(0);
    const id = await made.settled(submitOne(made.member(0)));
    expect((await made.settled(queue.waitFinal(id, 1_000, null)))?.status).toBe("Pending");
    const gone = new AbortController();
    const left = queue.waitFinal(id, 60_000, gone.signal);
    await made.run(10);
    gone.abort();
    expect((await made.settled(left))?.status).toBe("Pending");
    const cleared = queue.waitFinal(id, 60_000, null);
    await made.run(10);
    await made.settled(queue.clear(null, context));
    expect(await made.settled(cleared)).toBeNull();
    expect(queue.waiting().finals).toBe(0);
  });

  test("is bounded", async () => {
    const made = await cluster(1);
    const { queue } = made.member(0);
    const id = await made.settled(submitOne(made.member(0)));
    const waits = Array.from({ length: FINAL_WAITERS_MAX }, () => queue.waitFinal(id, 1_000, null));
    await made.run(10);
    expect(await made.settled(failure(queue.waitFinal(id, 1_000, null)))).toMatchObject({
      reason: "overloaded",
    });
    await made.settled(Promise.all(waits));
    expect(queue.waiting().finals).toBe(0);
  });

  test("a snapshot that brought the end without signals wakes by a recheck", async () => {
    const made = await cluster(2);
    const cut = made.member(1);
    const id = await made.settled(submitOne(made.member(0)));
    const wait = cut.queue.waitFinal(id, 60_000, null);
    await made.run(10);
    await complete(made, made.member(0));
    cut.queue.recheck();
    expect((await made.settled(wait))?.status).toBe("Completed");
  });
});

describe("a state that is replaced by an older one", () => {
  test("does not end a wait for a task that it does not know yet", async () => {
    const made = await cluster(3);
    const [first, waiting, cut] = [made.member(0), made.member(1), made.member(2)];
    cut.cut = true;
    const id = await made.settled(submitOne(first));
    let ended: string | null | undefined;
    const wait = waiting.queue.waitFinal(id, 60_000, null).then((task) => {
      ended = task?.status ?? null;
    });
    await made.run(100);
    waiting.install(cut);
    await made.run(1_000);
    expect(ended).toBeUndefined();
    await complete(made, first);
    await made.settled(wait);
    expect(ended).toBe("Completed");
  });

  test("nor shows at the end of a wait", async () => {
    const made = await cluster(3);
    const [first, waiting, cut] = [made.member(0), made.member(1), made.member(2)];
    cut.cut = true;
    const id = await made.settled(submitOne(first));
    const wait = waiting.queue.waitFinal(id, 1_000, null);
    await made.run(500);
    waiting.stalled = true;
    waiting.install(cut);
    await made.run(1_000);
    waiting.stalled = false;
    waiting.catchUp();
    expect((await made.settled(wait))?.status).toBe("Pending");
  });
});

describe("maintenance", () => {
  test("a clear vanishes at once, its rows go in steps, and then the log is quiet", async () => {
    const made = await cluster(1);
    const { queue, machine } = made.member(0);
    for (let i = 0; i < 5; i++)
      await made.settled(
        queue.submit(
          Array.from({ length: 500 }, () => task()),
          context,
        ),
      );
    expect(await made.settled(queue.clear(null, context))).toBe(2_500);
    expect(machine.counts().Pending).toBe(0);
    await made.run(500);
    expect(machine.clearing()).toBe(false);
    const steps = made.commands().filter(({ command }) => command.type === "clear-step");
    expect(steps.length).toBeGreaterThanOrEqual(3);
    await made.run(3_700_000);
    const quiet = made.log.length;
    await made.run(600_000);
    expect(made.log.length).toBe(quiet);
  });

  test("a clear that began under one leader is finished by the next", async () => {
    const made = await cluster(2);
    const { queue } = made.member(0);
    for (let i = 0; i < 4; i++)
      await made.settled(
        queue.submit(
          Array.from({ length: 500 }, () => task()),
          context,
        ),
      );
    await made.settled(queue.clear(null, context));
    made.depose();
    await made.elect(1);
    await made.run(1_000);
    expect(made.member(1).machine.clearing()).toBe(false);
    expect(made.member(0).machine.hash()).toBe(made.member(1).machine.hash());
  });

  test("retention deletes what is past it, on the leader's own clock", async () => {
    const made = await cluster(1);
    const { queue, machine } = made.member(0);
    const retention = { completed: 60_000, cancelled: 60_000, failed: 60_000 };
    await made.settled(queue.updateSettings({ retention }, context));
    await made.settled(submitOne(made.member(0)));
    await complete(made, made.member(0));
    await made.run(50_000);
    expect(machine.counts().Completed).toBe(1);
    await made.run(25_000);
    expect(machine.counts().Completed).toBe(0);
    expect(made.commands().filter(({ command }) => command.type === "purge").length).toBeLessThan(
      4,
    );
  });

  test("retention that is due all the time is gathered to a command every few seconds", async () => {
    const made = await cluster(1);
    const { queue, machine } = made.member(0);
    const retention = { completed: 1_000, cancelled: 1_000, failed: 1_000 };
    await made.settled(queue.updateSettings({ retention }, context));
    for (let i = 0; i < 100; i++) {
      const id = await made.settled(submitOne(made.member(0)));
      await made.settled(queue.cancel(id, context));
      await made.run(100);
    }
    await made.run(10_000);
    expect(machine.counts().Cancelled).toBe(0);
    expect(made.commands().filter(({ command }) => command.type === "purge").length).toBeLessThan(
      6,
    );
  });

  test("a long list of what is due goes in steps of bounded size", async () => {
    const made = await cluster(1);
    const run_at = made.member(0).logNow() + 1_000;
    for (let i = 0; i < 5; i++) {
      const tasks = Array.from({ length: 500 }, () => task({ run_at }));
      await made.settled(made.member(0).queue.submit(tasks, context));
    }
    await made.run(1_500);
    const dues = made.commands().filter(({ command }) => command.type === "due");
    expect(dues).toHaveLength(3);
    expect(made.member(0).machine.ready().get("default")?.get("work")).toBe(2_500);
  });

  test("scheduled tasks come due in log time under whichever leader", async () => {
    const made = await cluster(2);
    const run_at = made.member(0).logNow() + 10_000;
    const id = await made.settled(submitOne(made.member(0), { run_at }));
    await made.run(5_000);
    await made.elect(1);
    await made.run(4_000);
    expect(made.member(1).task(id).detail).toBe("scheduled");
    await made.run(1_500);
    expect(made.member(1).task(id).detail).toBe("ready");
    expect(made.commands().filter(({ command }) => command.type === "due")).toHaveLength(1);
  });
});

describe("watching", () => {
  test("changes of one turn are told once, with the tasks they touched", async () => {
    const made = await cluster(2);
    const changes: Change[] = [];
    const unlisten = made.member(1).queue.onChange((change) => changes.push(change));
    const { ids } = await made.settled(
      made.member(0).queue.submit([task(), task(), task()], context),
    );
    await made.run(10);
    expect(changes).toHaveLength(1);
    expect([...(changes[0]?.tasks ?? [])].sort()).toEqual([...ids].sort());
    expect(changes[0]?.appliedIndex).toBe(made.member(1).machine.applied().index);
    unlisten();
    await made.settled(submitOne(made.member(0)));
    await made.run(10);
    expect(changes).toHaveLength(1);
  });

  test("throughput counts by whole seconds of log time and forgets after a minute", async () => {
    const made = await cluster(2);
    const { queue } = made.member(1);
    for (let i = 0; i < 3; i++) await made.settled(submitOne(made.member(1)));
    await complete(made, made.member(1));
    await made.run(1_500);
    await made.settled(submitOne(made.member(1)));
    const sum = (): number[] =>
      queue
        .throughput()
        .reduce<number[]>(
          ([s = 0, c = 0, f = 0], at) => [s + at.submitted, c + at.completed, f + at.failed],
          [0, 0, 0],
        );
    expect(queue.throughput()).toHaveLength(60);
    expect(sum()).toEqual([3, 1, 0]);
    await made.run(70_000);
    await made.settled(submitOne(made.member(1)));
    expect(sum()).toEqual([0, 0, 0]);
  });

  test("the cluster is the same seen from any member, and a cut one shows what it can", async () => {
    const made = await cluster(3);
    const [a, b] = await made.settled(
      Promise.all([made.member(0).queue.cluster(), made.member(2).queue.cluster()]),
    );
    expect(a?.members).toEqual(b?.members ?? []);
    expect(b).toMatchObject({ node_id: "n3", role: "follower", leader_id: "n1" });
    expect(b?.members.map(({ id, role }) => [id, role])).toEqual([
      ["n1", "leader"],
      ["n2", "follower"],
      ["n3", "follower"],
    ]);
    made.member(2).cut = true;
    const alone = await made.settled(made.member(2).queue.cluster());
    expect(alone.members).toHaveLength(3);
    expect((await made.settled(made.member(0).queue.cluster())).members[2]?.reachable).toBe(false);
  });

  test("slots are known before the first heartbeat to a new leader, and to the member itself", async () => {
    const made = await cluster(3);
    const member = made.member(2);
    const local = { member: member.id, boot: 1 };
    const info = { member: "n3", slots: 7, names: ["work"], stuck: 1, kills: 2, restarts: 3 };
    await made.settled(member.queue.heartbeat("n3/1", PRINCIPAL, [], info));
    const poll = member.queue.claim(claimOf("n3/1", { local, names: ["work"] }), 60_000, null);
    const outside = member.queue.claim(claimOf("w"), 60_000, null);
    await made.run(20);
    await made.elect(1);
    await made.run(50);
    const workers = await made.settled(made.member(0).queue.workers());
    expect(workers).toMatchObject([
      { id: "n3/1", member: "n3", slots: 7, stuck: 1, kills: 2, restarts: 3 },
      { id: "w", member: null, slots: null },
    ]);
    made.depose();
    const own = await made.settled(member.queue.readWorkers("stale"));
    expect(own.workers).toMatchObject([{ id: "n3/1", member: "n3", names: ["work"], slots: 7 }]);
    expect((await made.settled(made.member(0).queue.readWorkers("stale"))).workers).toEqual([]);
    void poll.catch(() => undefined);
    void outside.catch(() => undefined);
  });

  test("without a quorum, workers are refused in a user's words, and stale reads go on", async () => {
    const made = await cluster(3);
    const id = await made.settled(submitOne(made.member(1)));
    await made.settled(made.member(1).queue.claim(claimOf("w"), 5_000, null));
    made.depose();
    const { queue } = made.member(1);
    for (const asked of [queue.workers(), queue.quiet("w"), queue.heartbeat("w", PRINCIPAL, [])]) {
      const error = await made.settled(failure(asked), 6_000);
      expect(error).toMatchObject({
        reason: expect.stringMatching(/^no-(leader|quorum)$/) as unknown,
      });
      expect(String(error)).not.toMatch(/worker\.|lease\./);
    }
    const { workers, read } = await made.settled(queue.readWorkers("stale"));
    expect(workers).toMatchObject([{ id: "w", running: [{ task_id: id }] }]);
    expect(read.appliedIndex).toBe(made.member(1).machine.applied().index);
    const { cluster: view } = await made.settled(queue.readCluster("stale"));
    expect(view).toMatchObject({ node_id: "n2", leader_id: null });
  });

  test("health says why: no leader, no contact, the disk, catching up, draining", async () => {
    let fault: string | null = null;
    const made = new Cluster(2, { diskFault: () => fault });
    const { queue } = made.member(1);
    expect(queue.health()).toMatchObject({ status: "unhealthy", reason: "no leader is known" });
    await made.elect(0);
    expect(queue.health()).toEqual({ status: "healthy", ready: true, notReady: null, alarms: [] });
    made.member(1).cut = true;
    expect(queue.health()).toMatchObject({ status: "unhealthy", ready: false });
    made.member(1).cut = false;
    fault = "the disk does not answer";
    expect(queue.health()).toMatchObject({ status: "unhealthy", reason: fault });
    fault = null;
    made.member(1).behind = "this member catches up";
    expect(queue.health()).toMatchObject({
      status: "healthy",
      ready: false,
      notReady: "this member catches up",
    });
    made.member(1).behind = null;
    queue.beginDrain();
    expect(queue.health()).toEqual({
      status: "healthy",
      ready: false,
      notReady: "this member is draining",
      alarms: [],
    });
  });

  test("stopping ends every wait with an error that says so", async () => {
    const made = await cluster(2);
    const { queue } = made.member(1);
    const id = await made.settled(submitOne(made.member(1), { name: "other" }));
    const waits = [
      failure(queue.waitFinal(id, 60_000, null)),
      failure(queue.claim(claimOf("w", { names: ["work"] }), 60_000, null)),
    ];
    await made.run(50);
    queue.stop();
    for (const error of await made.settled(Promise.all(waits))) {
      expect(error).toBeInstanceOf(QueueError);
      expect(error).toMatchObject({ reason: "stopping" });
    }
    expect(queue.health().status).toBe("unhealthy");
  });
});

describe("what another member sends", () => {
  test("is checked before use: nonsense is refused by name and breaks nothing", async () => {
    const made = await cluster(2);
    const { offers: _, ...rest } = { offers: [], more: 1 };
    const nonsense: [string, unknown][] = [
      ["claim.offer", null],
      ["claim.offer", rest],
      [
        "claim.offer",
        { offers: [{ claim: { ...claimOf("w"), max: -1 }, ttl_ms: 1, directive: "ok" }] },
      ],
      [
        "claim.offer",
        { offers: [{ claim: { ...claimOf("w"), max: 1e9 }, ttl_ms: 1, directive: "ok" }] },
      ],
      ["claim.offer", { offers: [{ claim: claimOf(""), ttl_ms: 1, directive: "ok" }] }],
      ["claim.offer", { offers: [{ claim: claimOf("w"), ttl_ms: "soon", directive: "ok" }] }],
      ["claim.offer", { offers: [{ claim: claimOf("w"), ttl_ms: 1, directive: "dance" }] }],
      ["claim.offer", { offers: Array.from({ length: 1_000 }, () => ({})) }],
      ["claim.withdraw", { worker_id: 7 }],
      ["claim.abandoned", { worker_id: "w", request_id: 1 }],
      [
        "lease.heartbeat",
        { worker_id: "w", principal: "p", leases: [{ task_id: "x" }], directive: "ok" },
      ],
      ["lease.heartbeat", { worker_id: "w", principal: "p", leases: {}, directive: "ok" }],
      ["worker.direct", { worker_id: "w", directive: "explode" }],
      ["claim.directive", "quiet"],
      ["claim.refused", { worker_id: "w", request_id: "r" }],
      ["claim.known", []],
    ];
    for (const [method, body] of nonsense) {
      const error = await made.settled(failure(made.member(1).call(method, body, 1_000)));
      expect([method, error]).toMatchObject([method, { name: "CallError", reason: "bad-message" }]);
    }
    await made.settled(submitOne(made.member(1)));
    await complete(made, made.member(1));
  });
});
