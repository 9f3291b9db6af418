import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import type { Command } from "../../src/queue/commands.ts";
import { LeaseTable } from "../../src/queue/leases.ts";
import { TaskMachine } from "../../src/queue/machine.ts";
import type { LeaseEvent } from "../../src/queue/service.ts";
import type { ClaimedTask, LeaseEnd, LeaseRef } from "../../src/queue/types.ts";
import { asIndex, asTerm } from "../../src/raft/types.ts";
import type { Millis, Timer } from "../../src/replica/ports.ts";
import { NodeClock, World } from "../sim/world.ts";
import { Cluster, type Member, quietLog } from "./fake-consensus.ts";
import { request } from "./machine-harness.ts";
import { claimOf, context, PRINCIPAL, submitOne, task } from "./service-harness.ts";

const LEASE_MS = 15_000;
const EXPIRY_MS = 18_000;

async function cluster(size: number): Promise<Cluster> {
  const made = new Cluster(size);
  await made.elect(0);
  return made;
}

/** Submits a task and claims it for `worker` at the member. */
async function claimOne(
  made: Cluster,
  member: Member,
  worker: string,
  more: Parameters<typeof task>[0] = {},
): Promise<{ task: ClaimedTask; ref: LeaseRef }> {
  await made.settled(submitOne(member, more));
  const { tasks } = await made.settled(member.queue.claim(claimOf(worker), 5_000, null));
  const [claimed] = tasks;
  if (claimed === undefined) throw new Error("nothing was claimed");
  return { task: claimed, ref: refOf(claimed) };
}

const refOf = ({ id, lease: { attempt, fence } }: ClaimedTask): LeaseRef => ({
  task_id: id,
  attempt,
  fence,
});

const count = (made: Cluster, type: Command["type"]): number =>
  made.commands().filter(({ command }) => command.type === type).length;

const COMPLETE: LeaseEnd = { kind: "complete", result: "1" };

describe("heartbeats", () => {
  test("say ok, cancel or lost, by fence, attempt, worker and principal", async () => {
    const made = await cluster(2);
    const follower = made.member(1);
    const { ref } = await claimOne(made, follower, "w", { timeout_ms: null });
    const beat = async (worker: string, principal: string, lease: LeaseRef): Promise<unknown> =>
      (await made.settled(follower.queue.heartbeat(worker, principal, [lease]))).verdicts[0];
    expect(await beat("w", PRINCIPAL, ref)).toBe("ok");
    expect(await beat("w", PRINCIPAL, { ...ref, fence: ref.fence + 1 })).toBe("lost");
    expect(await beat("w", PRINCIPAL, { ...ref, attempt: 2 })).toBe("lost");
    expect(await beat("other", PRINCIPAL, ref)).toBe("lost");
    expect(await beat("w", "somebody else", ref)).toBe("lost");
    expect(await beat("w", PRINCIPAL, { ...ref, task_id: "no-such-task" })).toBe("lost");
    await made.settled(follower.queue.cancel(ref.task_id, context));
    expect(await beat("w", PRINCIPAL, ref)).toBe("cancel");
  });

  test("keep a lease alive for as long as they come, and cost one log entry in all (T6)", async () => {
    const made = await cluster(2);
    const { ref } = await claimOne(made, made.member(1), "w", { timeout_ms: null });
    const before = made.log.length;
    for (let i = 0; i < 60; i++) {
      const { verdicts } = await made.settled(
        made.member(1).queue.heartbeat("w", PRINCIPAL, [ref]),
      );
      expect(verdicts).toEqual(["ok"]);
      await made.run(LEASE_MS / 3);
    }
    expect(count(made, "confirm")).toBe(1);
    const since = made.commands().filter(({ index }) => index > before);
    // The claim's answer is remembered for five minutes, then purged.
    expect(since.map(({ command }) => command.type)).toEqual(["confirm", "purge"]);
    expect(made.member(0).task(ref.task_id).status).toBe("Running");
  });

  test("a deposed leader that does not know it yet never says ok; the next leader answers", async () => {
    const made = await cluster(3);
    const { ref } = await claimOne(made, made.member(2), "w");
    made.quorum = false;
    const beat = made.member(2).queue.heartbeat("w", PRINCIPAL, [ref]);
    let answered = false;
    void beat.then(() => (answered = true));
    await made.run(1_000);
    expect(answered).toBe(false);
    made.quorum = true;
    await made.elect(1);
    expect((await made.settled(beat)).verdicts).toEqual(["ok"]);
  });

  test("without a quorum they are refused in the end", async () => {
    const made = await cluster(1);
    const { ref } = await claimOne(made, made.member(0), "w");
    made.quorum = false;
    const beat = made
      .member(0)
      .queue.heartbeat("w", PRINCIPAL, [ref])
      .catch((e: unknown) => e);
    expect(await made.settled(beat)).toMatchObject({ name: "QueueError", reason: "no-leader" });
  });

  test("carry progress into the log, gathered to one command a second", async () => {
    const made = await cluster(1);
    const { queue } = made.member(0);
    const { ref } = await claimOne(made, made.member(0), "w", { timeout_ms: null });
    for (let percent = 1; percent <= 40; percent++) {
      const progress = { percent, message: null };
      await made.settled(queue.heartbeat("w", PRINCIPAL, [{ ...ref, progress }]));
      await made.run(50);
    }
    await made.run(2_000);
    expect(made.member(0).task(ref.task_id).progress).toEqual({ percent: 40, message: null });
    expect(count(made, "report")).toBeLessThanOrEqual(5);
    expect(queue.waiting().reports).toBe(0);
  });
});

describe("expiry", () => {
  test("comes after 1.2 periods of silence; work that never showed goes back free of charge", async () => {
    const made = await cluster(2);
    const { ref } = await claimOne(made, made.member(1), "w", { timeout_ms: null });
    await made.run(EXPIRY_MS - 200);
    expect(made.member(0).task(ref.task_id).status).toBe("Running");
    await made.run(400);
    const { status, crashes, retries } = made.member(0).task(ref.task_id);
    expect([status, crashes, retries]).toEqual(["Pending", 0, 0]);
    expect(count(made, "expire")).toBe(1);
  });

  test("counts as a crash once a heartbeat showed the work", async () => {
    const made = await cluster(1);
    const { ref } = await claimOne(made, made.member(0), "w", { timeout_ms: null });
    await made.settled(made.member(0).queue.heartbeat("w", PRINCIPAL, [ref]));
    await made.run(EXPIRY_MS + 500);
    const { status, crashes, retries } = made.member(0).task(ref.task_id);
    expect([status, crashes, retries]).toEqual(["Pending", 1, 0]);
  });

  test("is proposed again when its command was lost, and happens once", async () => {
    const made = await cluster(1);
    const { ref } = await claimOne(made, made.member(0), "w", { timeout_ms: null });
    await made.run(EXPIRY_MS - 100);
    made.quorum = false;
    await made.run(3_000);
    expect(made.member(0).task(ref.task_id).status).toBe("Running");
    made.quorum = true;
    // As long as a leader waits for what it proposed itself.
    await made.run(63_000);
    expect(made.member(0).task(ref.task_id)).toMatchObject({ status: "Pending", crashes: 0 });
    expect(made.member(0).machine.attempts(ref.task_id)).toHaveLength(1);
  });

  test("waits a full period after an election, whatever came before", async () => {
    const made = await cluster(3);
    const { ref } = await claimOne(made, made.member(2), "w", { timeout_ms: null });
    await made.run(EXPIRY_MS - 500);
    await made.elect(1);
    await made.run(EXPIRY_MS - 500);
    expect(made.member(1).task(ref.task_id).status).toBe("Running");
    expect(
      (await made.settled(made.member(2).queue.heartbeat("w", PRINCIPAL, [ref]))).verdicts,
    ).toEqual(["ok"]);
    await made.run(EXPIRY_MS + 500);
    expect(made.member(1).task(ref.task_id).status).toBe("Pending");
  });

  test("comes all the same when elections never let a period pass", async () => {
    const made = await cluster(3);
    const { ref } = await claimOne(made, made.member(2), "w", { timeout_ms: null });
    let elections = 0;
    while (made.member(2).task(ref.task_id).status === "Running" && elections < 20) {
      await made.run(10_000);
      elections += 1;
      await made.elect(elections % 3);
      await made.run(1_000);
    }
    expect(made.member(2).task(ref.task_id).status).toBe("Pending");
    expect(elections).toBeLessThan(8);
  });

  test("thousands of silent leases expire in commands of bounded size", async () => {
    const made = await cluster(1);
    const { queue, machine } = made.member(0);
    for (let i = 0; i < 3; i++) {
      const tasks = Array.from({ length: 500 }, () => task({ timeout_ms: null }));
      await made.settled(queue.submit(tasks, context));
      await made.settled(queue.claim(claimOf("w", { max: 500 }), 5_000, null));
    }
    expect(machine.counts().Running).toBe(1_500);
    await made.run(EXPIRY_MS + 1_000);
    expect(machine.counts()).toMatchObject({ Running: 0, Pending: 1_500 });
    for (const { command } of made.commands())
      if (command.type === "expire") expect(command.items.length).toBeLessThanOrEqual(400);
    expect(queue.waiting().leases).toBe(0);
  });
});

describe("a heartbeat that meets an expiry on its way", () => {
  /** One lease; what is proposed stays under way until `settle` is called. */
  function leased() {
    const world = new World(1);
    const clock = new NodeClock(world);
    const machine = TaskMachine.open(new Database(":memory:"));
    const submitted = task({ timeout_ms: null });
    const commands: readonly Command[] = [
      { type: "submit", tasks: [submitted] },
      { type: "claim", ...claimOf("w") },
    ];
    const requests = commands.map((command, i) => request(i + 1, command));
    const at = { index: asIndex(1), term: asTerm(1), now: clock.wall(), seed: 1 };
    machine.apply([{ ...at, requests, acks: [], bootstrap: null }]);
    const held = machine.leaseOf(submitted.id);
    if (held === null) throw new Error("nothing was claimed");
    const ref: LeaseRef = { task_id: held.task_id, attempt: held.attempt, fence: held.fence };
    const underWay: PromiseWithResolvers<unknown>[] = [];
    const expired: Millis[] = [];
    const table = new LeaseTable({
      state: machine,
      clock,
      log: quietLog,
      logNow: () => clock.wall(),
      propose: (command) => {
        if (command.type !== "expire") return Promise.resolve(null);
        expired.push(world.now);
        const proposed = Promise.withResolvers<unknown>();
        underWay.push(proposed);
        return proposed.promise;
      },
    });
    table.start(1);
    return { world, clock, table, ref, underWay, expired };
  }

  test("waits until that was applied: nobody is told ok of a lease that is about to end", async () => {
    const { world, table, ref, underWay } = leased();
    await world.run(EXPIRY_MS + 500);
    expect(underWay).toHaveLength(1);
    const settled: boolean[] = [];
    void table.settled([ref]).then((all) => settled.push(all));
    await world.run(EXPIRY_MS + 600);
    expect(settled).toEqual([]);
    underWay[0]?.resolve(null);
    await world.run(EXPIRY_MS + 700);
    expect(settled).toEqual([true]);
    table.stop();
  });

  test("learns nothing while it may have been applied or not, and the expiry is proposed again", async () => {
    const { world, clock, table, ref, underWay } = leased();
    await world.run(EXPIRY_MS + 500);
    underWay[0]?.reject(new Error("no quorum"));
    await world.run(EXPIRY_MS + 600);
    expect(await table.settled([ref])).toBe(false);
    table.arrived("w", PRINCIPAL, [ref], clock.monotonic());
    await world.run(EXPIRY_MS + 2_500);
    expect(underWay.length).toBeGreaterThan(1);
    table.stop();
  });

  test("postpones it from its arrival, however long the round before the answer takes", async () => {
    const { world, clock, table, ref, expired } = leased();
    await world.run(LEASE_MS);
    table.arrived("w", PRINCIPAL, [ref], clock.monotonic());
    table.arrived("another", PRINCIPAL, [ref], clock.monotonic() + 5_000);
    await world.run(LEASE_MS + EXPIRY_MS + 500);
    expect(expired).toHaveLength(1);
    expect(expired[0]).toBeGreaterThanOrEqual(LEASE_MS + EXPIRY_MS);
    table.stop();
  });
});

/** A process that can stop running: what was due meanwhile happens when it goes on. */
class StallingClock extends NodeClock {
  stalledUntil = 0;
  override after(delay: Millis, run: () => void): Timer {
    return super.after(delay, () => {
      const left = this.stalledUntil - this.monotonic();
      if (left > 0) super.after(left, run);
      else run();
    });
  }
}

describe("a leader that was away", () => {
  async function silent(stallMs: Millis): Promise<{ at: Millis | null }> {
    const world = new World(1);
    const clock = new StallingClock(world);
    const machine = TaskMachine.open(new Database(":memory:"));
    const now = clock.wall();
    const commands: readonly Command[] = [
      { type: "submit", tasks: [task({ timeout_ms: null })] },
      { type: "claim", ...claimOf("w") },
    ];
    const requests = commands.map((command, i) => request(i + 1, command));
    const at = { index: asIndex(1), term: asTerm(1), now, seed: 1 };
    machine.apply([{ ...at, requests, acks: [], bootstrap: null }]);
    const proposed: Command[] = [];
    const seen: { at: Millis | null } = { at: null };
    const table = new LeaseTable({
      state: machine,
      clock,
      log: quietLog,
      logNow: () => clock.wall(),
      propose: (command) => {
        proposed.push(command);
        if (command.type === "expire") seen.at ??= world.now;
        return Promise.resolve(null);
      },
    });
    table.start(1);
    await world.run(15_000);
    clock.stalledUntil = 15_000 + stallMs;
    await world.run(60_000);
    table.stop();
    expect(proposed[0]?.type).toBe("takeover");
    return seen;
  }

  test("gives every lease a full period when it comes back", async () => {
    const { at } = await silent(5_000);
    expect(at ?? 0).toBeGreaterThanOrEqual(20_000 + EXPIRY_MS);
    expect(at ?? 0).toBeLessThan(20_000 + EXPIRY_MS + 1_000);
  });

  test("and goes by its deadlines when it was late by less", async () => {
    const { at } = await silent(300);
    expect(at ?? 0).toBeGreaterThanOrEqual(EXPIRY_MS);
    expect(at ?? 0).toBeLessThan(EXPIRY_MS + 1_000);
  });
});

describe("time-outs", () => {
  test("come by log time, whatever heartbeats say, and are failures", async () => {
    const made = await cluster(2);
    const events: LeaseEvent[] = [];
    made.member(1).queue.onLease((event) => events.push(event));
    const { ref } = await claimOne(made, made.member(1), "w", {
      timeout_ms: 2_000,
      max_retries: 0,
    });
    for (let i = 0; i < 25; i++) {
      await made.settled(made.member(1).queue.heartbeat("w", PRINCIPAL, [ref]));
      await made.run(100);
    }
    expect(made.member(0).task(ref.task_id)).toMatchObject({ status: "Failed", detail: "timeout" });
    expect(events).toEqual([
      { type: "lost", task_id: ref.task_id, fence: ref.fence, reason: "timeout" },
    ]);
    expect(count(made, "timeout")).toBe(1);
  });

  test("survive an election", async () => {
    const made = await cluster(2);
    const { ref } = await claimOne(made, made.member(0), "w", { timeout_ms: 3_000 });
    await made.elect(1);
    await made.run(2_000);
    expect(made.member(1).task(ref.task_id).status).toBe("Running");
    await made.run(1_500);
    expect(made.member(1).task(ref.task_id)).toMatchObject({ status: "Pending", retries: 1 });
  });
});

describe("ends", () => {
  test("a fence that is over is refused and changes nothing; a repeat is answered ok", async () => {
    const made = await cluster(2);
    const follower = made.member(1);
    const { ref } = await claimOne(made, follower, "w", { timeout_ms: null });
    const end = async (worker: string, item: LeaseRef): Promise<unknown> =>
      (
        await made.settled(
          follower.queue.end(worker, PRINCIPAL, [{ ...item, end: COMPLETE }], null),
        )
      )[0];
    expect(await end("w", { ...ref, fence: ref.fence - 1 })).toBe("stale-lease");
    expect(await end("other", ref)).toBe("forbidden");
    expect(follower.task(ref.task_id).status).toBe("Running");
    expect(await end("w", ref)).toBe("ok");
    expect(await end("w", ref)).toBe("ok");
    expect(follower.task(ref.task_id)).toMatchObject({ status: "Completed", result: "1" });
    expect(await end("w", { ...ref, task_id: "nothing" })).toBe("not-found");
  });

  test("an end forgets the lease: no expiry follows", async () => {
    const made = await cluster(1);
    const { ref } = await claimOne(made, made.member(0), "w", { timeout_ms: 60_000 });
    await made.settled(made.member(0).queue.end("w", PRINCIPAL, [{ ...ref, end: COMPLETE }], null));
    expect(made.member(0).queue.waiting().leases).toBe(0);
    await made.run(120_000);
    expect(count(made, "expire") + count(made, "timeout")).toBe(0);
  });

  test("a cancel reaches the executors of every member, and the release that follows confirms it", async () => {
    const made = await cluster(2);
    const events: LeaseEvent[] = [];
    const unlisten = made.member(1).queue.onLease((event) => events.push(event));
    const { ref } = await claimOne(made, made.member(1), "w", { timeout_ms: null });
    await made.settled(made.member(0).queue.cancel(ref.task_id, context));
    await made.run(10);
    expect(events).toEqual([
      { type: "cancel", task_id: ref.task_id, fence: ref.fence, reason: "cancelled" },
    ]);
    unlisten();
    const release = { ...ref, end: { kind: "release" } as const };
    expect(await made.settled(made.member(1).queue.end("w", PRINCIPAL, [release], null))).toEqual([
      "ok",
    ]);
    expect(made.member(1).task(ref.task_id).status).toBe("Cancelled");
    expect(events).toHaveLength(1);
  });

  test("a member that starts again frees what its earlier boots held, at no cost", async () => {
    const made = await cluster(2);
    const { id, queue } = made.member(1);
    await made.settled(submitOne(made.member(1)));
    const claim = claimOf("n2/0", { local: { member: id, boot: 0 } });
    const { tasks } = await made.settled(queue.claim(claim, 5_000, null));
    made.depose();
    const booted = queue.boot(["echo"]);
    await made.run(8_000);
    await made.elect(0);
    await made.settled(booted);
    expect(made.member(1).task(tasks[0]?.id ?? "")).toMatchObject({
      status: "Pending",
      crashes: 0,
      retries: 0,
    });
    expect(made.member(1).machine.namedNames().has("echo")).toBe(true);
  });
});

describe("reports", () => {
  test("log lines of many calls become at most one entry a second, in order, and each caller is answered", async () => {
    const made = await cluster(2);
    const follower = made.member(1);
    const { ref } = await claimOne(made, follower, "w", { timeout_ms: null });
    const answers: Promise<readonly string[]>[] = [];
    for (let i = 0; i < 50; i++) {
      const item = { ...ref, progress: null, lines: [`line ${i}`] };
      answers.push(follower.queue.report("w", PRINCIPAL, [item]));
      await made.run(40);
    }
    const all = await made.settled(Promise.all(answers));
    expect(all.every(([answer]) => answer === "ok")).toBe(true);
    const { lines } = await made.settled(
      follower.queue.logs(ref.task_id, null, 100, "linearizable"),
    );
    expect(lines?.map(({ line }) => line)).toEqual(
      Array.from({ length: 50 }, (_, i) => `line ${i}`),
    );
    expect(count(made, "report")).toBeLessThanOrEqual(4);
  });

  test("a report with a fence that is over is answered stale-lease", async () => {
    const made = await cluster(1);
    const { ref } = await claimOne(made, made.member(0), "w");
    const item = { ...ref, fence: 999, progress: null, lines: ["x"] };
    expect(await made.settled(made.member(0).queue.report("w", PRINCIPAL, [item]))).toEqual([
      "stale-lease",
    ]);
  });
});

describe("workers", () => {
  test("one that was not heard of since an election can be quieted by what it runs", async () => {
    const made = await cluster(2);
    await claimOne(made, made.member(1), "w", { timeout_ms: null });
    await made.elect(1);
    expect(await made.settled(made.member(0).queue.quiet("w"))).toBe(true);
    const { directive } = await made.settled(made.member(0).queue.heartbeat("w", PRINCIPAL, []));
    expect(directive).toBe("quiet");
  });

  test("are listed at any member with what they said and what they run", async () => {
    const made = await cluster(2);
    const follower = made.member(1);
    const { ref } = await claimOne(made, follower, "w", { timeout_ms: null });
    const info = { member: "n2", slots: 4, names: ["work"], stuck: 1, kills: 2, restarts: 3 };
    await made.settled(follower.queue.heartbeat("w", PRINCIPAL, [ref], info));
    const workers = await made.settled(follower.queue.workers());
    expect(workers).toHaveLength(1);
    expect(workers[0]).toMatchObject({
      id: "w",
      member: "n2",
      principal: PRINCIPAL,
      slots: 4,
      stuck: 1,
    });
    expect(workers[0]?.running.map(({ task_id }) => task_id)).toEqual([ref.task_id]);
    await made.elect(1);
    expect((await made.settled(made.member(0).queue.workers()))[0]?.running).toHaveLength(1);
  });

  test("a quiet one is told with its waiting claim and with its heartbeats, by the next leader too", async () => {
    const made = await cluster(2);
    const follower = made.member(1);
    expect(await made.settled(follower.queue.quiet("w"))).toBe(false);
    const poll = follower.queue.claim(claimOf("w"), 30_000, null);
    await made.run(20);
    expect(await made.settled(follower.queue.quiet("w"))).toBe(true);
    expect(await made.settled(poll)).toEqual({ tasks: [], directive: "quiet" });
    expect((await made.settled(follower.queue.heartbeat("w", PRINCIPAL, []))).directive).toBe(
      "quiet",
    );
    await made.elect(0);
    await made.settled(submitOne(made.member(0)));
    const again = await made.settled(follower.queue.claim(claimOf("w"), 30_000, null));
    expect(again).toEqual({ tasks: [], directive: "quiet" });
    expect(follower.machine.counts().Pending).toBe(1);
  });
});
