import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { LIMITS } from "../../src/queue/types.ts";
import { Cluster, ROUND_MS } from "./fake-consensus.ts";
import { claimOf, context, submitOne, task } from "./service-harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

async function single(): Promise<Cluster> {
  const cluster = new Cluster(1);
  await cluster.elect(0);
  return cluster;
}

async function pair(): Promise<Cluster> {
  const cluster = new Cluster(2);
  await cluster.elect(0);
  return cluster;
}

const claimsIn = (cluster: Cluster): number =>
  cluster.commands().filter(({ command }) => command.type === "claim").length;

/** Members of a request and of its repeat; 0 leads. */
const ASKED_AND_AGAIN = [
  [0, 1],
  [1, 0],
  [1, 2],
] as const;

describe("claims", () => {
  test("the entry that carries a submit carries the claim of whoever waits (T5)", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const waiting = queue.claim(claimOf("w"), 30_000, null);
    await cluster.run(100);
    const before = cluster.world.now;
    const id = await cluster.settled(submitOne(cluster.member(0)));
    const { tasks } = await cluster.settled(waiting);
    expect(tasks.map((claimed) => claimed.id)).toEqual([id]);
    expect(cluster.world.now - before).toBeLessThanOrEqual(ROUND_MS + 1);
    const [submit, claim] = cluster.commands().slice(-2);
    expect([submit?.command.type, claim?.command.type]).toEqual(["submit", "claim"]);
    expect(claim?.index).toBe(submit?.index ?? -1);
  });

  test("a claim that waits at a follower is served in the submit's round too", async () => {
    const cluster = await pair();
    const follower = cluster.member(1);
    const waiting = follower.queue.claim(claimOf("w"), 30_000, null);
    await cluster.run(100);
    await cluster.settled(submitOne(follower));
    const { tasks } = await cluster.settled(waiting);
    expect(tasks).toHaveLength(1);
    const indexes = new Set(
      cluster
        .commands()
        .slice(-2)
        .map(({ index }) => index),
    );
    expect(indexes.size).toBe(1);
  });

  test("a claim that comes while the submit's entry is under way goes right behind it", async () => {
    for (const index of [0, 1]) {
      const cluster = await pair();
      const submitted = submitOne(cluster.member(0));
      await cluster.run(ROUND_MS / 8);
      const before = cluster.world.now;
      const claimed = cluster.member(index).queue.claim(claimOf("w"), 30_000, null);
      const { tasks } = await cluster.settled(claimed);
      expect(tasks.map(({ id }) => id)).toEqual([await submitted]);
      // A round, and the way there and back; it would be three quarters of a millisecond more, or almost a round, if the leader
      // had to apply the submit first.
      expect(cluster.world.now - before).toBeLessThan(ROUND_MS + 2 * index + 0.5);
    }
  });

  test("a task under way is promised once, to whoever waited for it or came meanwhile", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const first = queue.claim(claimOf("a"), 1_000, null);
    await cluster.run(100);
    const submitted = submitOne(cluster.member(0));
    await cluster.run(ROUND_MS / 4);
    const second = queue.claim(claimOf("b"), 1_000, null);
    await cluster.run(100);
    expect((await cluster.settled(first)).tasks.map(({ id }) => id)).toEqual([await submitted]);
    expect((await cluster.settled(second)).tasks).toEqual([]);
    expect(claimsIn(cluster)).toBe(1);
  });

  test("a submit under way that is refused leaves the claim waiting for the next", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const taken = task();
    await cluster.settled(queue.submit([taken], context));
    await cluster.settled(queue.cancel(taken.id, context));
    const refused = queue.submit([{ ...taken, body_hash: "another" }], context);
    await cluster.run(ROUND_MS / 4);
    const claimed = queue.claim(claimOf("w"), 30_000, null);
    const refusal = refused.catch((error: unknown) => error);
    expect(await cluster.settled(refusal)).toMatchObject({ reason: "id-conflict" });
    await cluster.run(100);
    expect(claimsIn(cluster)).toBe(1);
    const id = await cluster.settled(submitOne(cluster.member(0)));
    expect((await cluster.settled(claimed)).tasks.map((next) => next.id)).toEqual([id]);
    expect(claimsIn(cluster)).toBe(2);
  });

  test("waiting costs no log entries, and an idle queue makes none", async () => {
    const cluster = await pair();
    const waiting = cluster.member(1).queue.claim(claimOf("w"), 60_000, null);
    await cluster.run(50);
    const before = cluster.log.length;
    const { tasks } = await cluster.settled(waiting, 61_000);
    expect(tasks).toEqual([]);
    expect(cluster.log.length).toBe(before);
  });

  test("a claim offered when tasks are ready takes them at once, and a part is an answer", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    await cluster.settled(queue.submit([task(), task(), task()], context));
    const { tasks } = await cluster.settled(queue.claim(claimOf("w", { max: 10 }), 30_000, null));
    expect(tasks).toHaveLength(3);
  });

  test("three waiters and one task: one claim goes into the log, the others stay", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const polls = ["a", "b", "c"].map((worker) => queue.claim(claimOf(worker), 5_000, null));
    await cluster.run(10);
    await cluster.settled(submitOne(cluster.member(0)));
    const answers = await cluster.settled(Promise.all(polls));
    expect(answers.map(({ tasks }) => tasks.length)).toEqual([1, 0, 0]);
    expect(claimsIn(cluster)).toBe(1);
  });

  test("ready tasks are promised once: three that come due bring three claims to ten waiters", async () => {
    const cluster = await pair();
    const polls = Array.from({ length: 10 }, (_, i) =>
      cluster.member(i % 2).queue.claim(claimOf(`w${i}`), 10_000, null),
    );
    const run_at = cluster.member(0).logNow() + 1_000;
    const tasks = Array.from({ length: 3 }, () => task({ run_at }));
    await cluster.settled(cluster.member(0).queue.submit(tasks, context));
    const answers = await cluster.settled(Promise.all(polls));
    expect(answers.reduce((sum, answer) => sum + answer.tasks.length, 0)).toBe(3);
    expect(claimsIn(cluster)).toBe(3);
  });

  test("who waits ahead of a free slot is served last, however long it waits", async () => {
    const cluster = await pair();
    const ahead = cluster.member(1).queue.claim(claimOf("a", { ahead: true }), 30_000, null);
    await cluster.run(100);
    const free = cluster.member(0).queue.claim(claimOf("b"), 30_000, null);
    await cluster.run(100);
    const first = await cluster.settled(submitOne(cluster.member(0)));
    const second = await cluster.settled(submitOne(cluster.member(0)));
    expect((await cluster.settled(free)).tasks.map(({ id }) => id)).toEqual([first]);
    expect((await cluster.settled(ahead)).tasks.map(({ id }) => id)).toEqual([second]);
  });

  test("who comes while the only other waiter is being served, after one that left, is not forgotten", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const first = queue.claim(claimOf("a"), 30_000, null);
    await cluster.run(100);
    const served = submitOne(cluster.member(0));
    await cluster.run(ROUND_MS / 4);
    const gone = new AbortController();
    const left = queue.claim(claimOf("b"), 30_000, gone.signal);
    await cluster.run(ROUND_MS / 4);
    gone.abort();
    await cluster.run(ROUND_MS / 4);
    const late = queue.claim(claimOf("c"), 30_000, null);
    expect((await cluster.settled(first)).tasks.map(({ id }) => id)).toEqual([await served]);
    expect((await cluster.settled(left)).tasks).toEqual([]);
    await cluster.run(100);
    const next = await cluster.settled(submitOne(cluster.member(0)));
    expect((await cluster.settled(late, 1_000)).tasks.map(({ id }) => id)).toEqual([next]);
  });

  test("who waits longest is served first, across what they ask for", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const served: string[] = [];
    const poll = (worker: string, queues: string[] | null): void => {
      void queue.claim(claimOf(worker, { queues }), 30_000, null).then(({ tasks }) => {
        if (tasks.length > 0) served.push(worker);
      });
    };
    poll("a", null);
    poll("b", ["default"]);
    poll("c", null);
    poll("d", ["default", "other"]);
    await cluster.run(10);
    for (let i = 0; i < 4; i++) {
      await cluster.settled(submitOne(cluster.member(0)));
      await cluster.run(10);
    }
    expect(served).toEqual(["a", "b", "c", "d"]);
  });

  test('an explicit name goes before "*", and "*" never takes what somebody once named', async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const star = queue.claim(
      claimOf("star", { names: ["other"], star: true, max: 5 }),
      20_000,
      null,
    );
    await cluster.run(10);
    const gone = new AbortController();
    void queue.claim(claimOf("explicit", { names: ["work"] }), 20_000, gone.signal);
    await cluster.run(10);
    gone.abort();
    await cluster.run(10);
    await cluster.settled(submitOne(cluster.member(0)));
    await cluster.run(1_000);
    expect(cluster.member(0).machine.counts().Pending).toBe(1);
    await cluster.settled(submitOne(cluster.member(0), { name: "stray" }));
    const { tasks } = await cluster.settled(star);
    expect(tasks.map(({ name }) => name)).toEqual(["stray"]);
  });

  test("a name that finds no room among the names is refused to the waiter", async () => {
    const cluster = await pair();
    const names = Array.from({ length: 10_000 }, (_, i) => `name-${i}`);
    const first = cluster.member(1).queue.claim(claimOf("a", { names }), 1_000, null);
    await cluster.settled(first);
    const refused = cluster
      .member(1)
      .queue.claim(claimOf("b", { names: ["one more"] }), 1_000, null);
    expect(await cluster.settled(refused.catch((error: unknown) => error))).toMatchObject({
      reason: "names-full",
    });
  });

  test("a waiter for something else is left alone and costs nothing", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const other = queue.claim(claimOf("w", { queues: ["elsewhere"] }), 2_000, null);
    await cluster.run(10);
    await cluster.settled(submitOne(cluster.member(0)));
    expect((await cluster.settled(other)).tasks).toEqual([]);
    expect(claimsIn(cluster)).toBe(0);
  });

  test("a scheduled task goes to the waiter when its time comes, without a poll", async () => {
    const cluster = await pair();
    const poll = cluster.member(1).queue.claim(claimOf("w"), 30_000, null);
    const run_at = cluster.member(0).logNow() + 5_000;
    const id = await cluster.settled(submitOne(cluster.member(1), { run_at }));
    const { tasks } = await cluster.settled(poll);
    expect(tasks[0]?.id).toBe(id);
    expect(tasks[0]?.started_at ?? 0).toBeGreaterThanOrEqual(run_at);
    expect(tasks[0]?.started_at ?? 0).toBeLessThan(run_at + 100);
  });

  test("repeating a request id returns the same tasks, on any member and after an election", async () => {
    const cluster = await pair();
    await cluster.settled(submitOne(cluster.member(0)));
    await cluster.settled(submitOne(cluster.member(0)));
    const claim = claimOf("w");
    const first = await cluster.settled(cluster.member(0).queue.claim(claim, 5_000, null));
    const second = await cluster.settled(cluster.member(1).queue.claim(claim, 5_000, null));
    await cluster.elect(1);
    const third = await cluster.settled(cluster.member(0).queue.claim(claim, 5_000, null));
    const fences = [first, second, third].map(({ tasks }) => tasks.map(({ lease }) => lease.fence));
    expect(fences[0]).toHaveLength(1);
    expect(fences[1]).toEqual(fences[0] ?? []);
    expect(fences[2]).toEqual(fences[0] ?? []);
    expect(cluster.member(0).machine.counts().Running).toBe(1);
  });

  test("a repeat that hardly waits is told what the first claim holds, on any member", async () => {
    const cluster = await pair();
    await cluster.settled(submitOne(cluster.member(0)));
    const claim = claimOf("w");
    const first = await cluster.settled(cluster.member(1).queue.claim(claim, 5_000, null));
    for (const index of [0, 1]) {
      for (let waitMs = 0; waitMs < 10; waitMs++) {
        const again = await cluster.settled(cluster.member(index).queue.claim(claim, waitMs, null));
        expect(again.tasks.map(({ lease }) => lease.fence)).toEqual(
          first.tasks.map(({ lease }) => lease.fence),
        );
      }
    }
  });

  test("what a repeat got at another member stays with it, though the first wait had ended", async () => {
    for (const [asked, again] of ASKED_AND_AGAIN) {
      const cluster = new Cluster(3);
      await cluster.elect(0);
      const claim = claimOf("w");
      const empty = await cluster.settled(cluster.member(asked).queue.claim(claim, 0, null));
      expect(empty.tasks).toEqual([]);
      const id = await cluster.settled(submitOne(cluster.member(0)));
      const { tasks } = await cluster.settled(cluster.member(again).queue.claim(claim, 0, null));
      expect(tasks.map((claimed) => claimed.id)).toEqual([id]);
      await cluster.run(2_000);
      expect(cluster.member(0).task(id)).toMatchObject({ status: "Running", attempt: 1 });
    }
  });

  test("a wait that is given up does not end that of its repeat at another member", async () => {
    for (const [asked, again] of ASKED_AND_AGAIN) {
      const cluster = new Cluster(3);
      await cluster.elect(0);
      const claim = claimOf("w");
      const gone = new AbortController();
      const first = cluster.member(asked).queue.claim(claim, 30_000, gone.signal);
      await cluster.run(50);
      const second = cluster.member(again).queue.claim(claim, 30_000, null);
      await cluster.run(50);
      gone.abort();
      expect((await cluster.settled(first)).tasks).toEqual([]);
      await cluster.run(50);
      const id = await cluster.settled(submitOne(cluster.member(0)));
      expect((await cluster.settled(second)).tasks.map((claimed) => claimed.id)).toEqual([id]);
      await cluster.run(2_000);
      expect(cluster.member(0).task(id)).toMatchObject({ status: "Running", attempt: 1 });
    }
  });

  test("a repeat while the first wait's tasks go back is told of none, or keeps what it is told of", async () => {
    for (const [asked, again] of ASKED_AND_AGAIN) {
      for (const goneAfter of [0, 1]) {
        for (const wait of [0, 1, 1.5, 2, 3]) {
          const cluster = new Cluster(3);
          await cluster.elect(0);
          const claim = claimOf("w");
          const gone = new AbortController();
          void cluster.member(asked).queue.claim(claim, 30_000, gone.signal);
          await cluster.run(50);
          const submitted = submitOne(cluster.member(0));
          await cluster.run(goneAfter);
          gone.abort();
          await cluster.run(wait);
          const { tasks } = await cluster.settled(
            cluster.member(again).queue.claim(claim, 100, null),
          );
          const id = await cluster.settled(submitted);
          await cluster.run(2_000);
          const { status, lease } = cluster.member(0).task(id);
          // Given back it is another's, or free.
          expect([asked, again, goneAfter, wait, status, lease?.fence]).toEqual([
            asked,
            again,
            goneAfter,
            wait,
            tasks.length > 0 ? "Running" : status,
            tasks[0]?.lease.fence ?? lease?.fence,
          ]);
        }
      }
    }
  });

  test("a repeat at a member that is behind is not told of what went back meanwhile", async () => {
    for (let lag = 0; lag < 16; lag++) {
      const cluster = new Cluster(3);
      await cluster.elect(0);
      const claim = claimOf("w");
      const gone = new AbortController();
      cluster.member(2).cut = true;
      void cluster.member(1).queue.claim(claim, 30_000, gone.signal);
      await cluster.run(50);
      const submitted = submitOne(cluster.member(0));
      gone.abort();
      const id = await cluster.settled(submitted);
      await cluster.run(100);
      const again = cluster.member(2).queue.claim(claim, 100, null);
      await cluster.run(5);
      cluster.member(2).cut = false;
      await cluster.run(lag);
      // It applies what it lacks in the middle of asking.
      await cluster.settled(submitOne(cluster.member(0)));
      const { tasks } = await cluster.settled(again);
      expect([lag, cluster.member(0).task(id).status, tasks]).toEqual([lag, "Pending", []]);
    }
  });

  /** A wait at member 1 that is given up when its claim is logged; the leader, member 0, has not applied it. */
  async function grantedBehindTheLeader(
    claim: ReturnType<typeof claimOf>,
  ): Promise<{ cluster: Cluster; id: string }> {
    const cluster = new Cluster(3);
    await cluster.elect(0);
    const gone = new AbortController();
    const first = cluster.member(1).queue.claim(claim, 30_000, gone.signal);
    await cluster.run(50);
    cluster.member(0).stalled = true;
    const submitted = submitOne(cluster.member(2));
    await cluster.run(1.5);
    gone.abort();
    expect((await cluster.settled(first)).tasks).toEqual([]);
    return { cluster, id: await cluster.settled(submitted) };
  }

  test("a repeat is told of what the leader logged and has not applied, however long it waits", async () => {
    for (const waitMs of [0, 50, 30_000]) {
      for (const again of [0, 1, 2]) {
        const claim = claimOf("w");
        const { cluster, id } = await grantedBehindTheLeader(claim);
        const since = cluster.world.now;
        const repeat = cluster.member(again).queue.claim(claim, waitMs, null);
        await cluster.run(1_500);
        cluster.member(0).stalled = false;
        cluster.member(0).catchUp();
        const { tasks } = await cluster.settled(repeat, 40_000);
        expect([waitMs, again, tasks.map((claimed) => claimed.id)]).toEqual([waitMs, again, [id]]);
        expect(cluster.world.now - since).toBeLessThan(2_000);
        await cluster.run(2_000);
        expect(cluster.member(0).task(id)).toMatchObject({ status: "Running", attempt: 1 });
        expect(cluster.member(0).queue.waiting().offers).toBe(0);
      }
    }
  });

  test("what nobody asks for again goes back, though the leader applied it late", async () => {
    const { cluster, id } = await grantedBehindTheLeader(claimOf("w"));
    await cluster.run(500);
    cluster.member(0).stalled = false;
    cluster.member(0).catchUp();
    await cluster.run(1_000);
    expect(cluster.member(0).task(id)).toMatchObject({ status: "Pending", attempt: 1 });
  });

  test("a repeat of a worker that shall be quiet, or at a member that drains, is told of it too", async () => {
    for (const how of ["quiet before", "quiet", "drain"]) {
      const claim = claimOf("w");
      const { cluster, id } = await grantedBehindTheLeader(claim);
      const { queue } = cluster.member(2);
      if (how === "quiet before") await cluster.settled(queue.quiet("w"));
      // It is behind as well, so that it cannot tell by its own state.
      cluster.member(2).stalled = true;
      const repeat = queue.claim(claim, 30_000, null);
      await cluster.run(5);
      if (how === "quiet") await cluster.settled(queue.quiet("w"));
      if (how === "drain") queue.beginDrain();
      await cluster.run(100);
      cluster.member(2).stalled = false;
      cluster.member(2).catchUp();
      const { tasks } = await cluster.settled(repeat);
      expect([how, tasks.map((claimed) => claimed.id)]).toEqual([how, [id]]);
    }
  });

  test("a repeat that does not wait takes over the claim that is under way for a wait given up", async () => {
    const cluster = await pair();
    const claim = claimOf("w");
    const gone = new AbortController();
    void cluster.member(0).queue.claim(claim, 30_000, gone.signal);
    await cluster.run(50);
    const submitted = submitOne(cluster.member(0));
    await cluster.run(0.2);
    gone.abort();
    const again = await cluster.settled(cluster.member(1).queue.claim(claim, 0, null));
    const id = await cluster.settled(submitted);
    expect(again.tasks.map((claimed) => claimed.id)).toEqual([id]);
    expect(claimsIn(cluster)).toBe(1);
    expect(cluster.member(0).queue.waiting().offers).toBe(0);
  });

  test("a claim under way for nobody that takes nothing is not kept, nor proposed again", async () => {
    const cluster = await pair();
    const gone = new AbortController();
    void cluster.member(1).queue.claim(claimOf("w", { names: ["new"] }), 30_000, gone.signal);
    await cluster.run(1.5);
    gone.abort();
    await cluster.run(50);
    await cluster.settled(submitOne(cluster.member(0), { name: "new" }));
    await cluster.run(50);
    expect(claimsIn(cluster)).toBe(1);
    expect(cluster.member(0).queue.waiting().offers).toBe(0);
  });

  test("without a quorum nobody says that there is nothing", async () => {
    const cluster = await pair();
    const poll = cluster.member(1).queue.claim(claimOf("w"), 50, null);
    await cluster.run(20);
    cluster.quorum = false;
    const refused = cluster.settled(
      poll.catch((error: unknown) => error),
      10_000,
    );
    expect(await refused).toMatchObject({ reason: "no-quorum" });
    cluster.quorum = true;
    await cluster.run(50);
    expect(cluster.member(0).queue.waiting()).toMatchObject({ claims: 0, offers: 0 });
  });

  test("the repeat of another principal's request brings nothing", async () => {
    const cluster = await pair();
    await cluster.settled(submitOne(cluster.member(0)));
    const claim = claimOf("w");
    await cluster.settled(cluster.member(0).queue.claim(claim, 5_000, null));
    const stranger = { ...claim, principal: "stranger" };
    const stolen = await cluster.settled(cluster.member(1).queue.claim(stranger, 5_000, null));
    expect(stolen.tasks).toEqual([]);
  });

  test("another principal's worker and request ids do not stand in the way of one's own", async () => {
    const cluster = await pair();
    const first = await cluster.settled(submitOne(cluster.member(0)));
    const second = await cluster.settled(submitOne(cluster.member(0)));
    const claim = claimOf("w");
    const stranger = { ...claim, principal: "stranger" };
    const { queue } = cluster.member(1);
    const ids = async (of: typeof claim): Promise<string[]> =>
      (await cluster.settled(queue.claim(of, 5_000, null))).tasks.map(({ id }) => id);
    expect(await ids(stranger)).toEqual([first]);
    expect(await ids(claim)).toEqual([second]);
    expect(await ids(stranger)).toEqual([first]);
  });

  test("the entry that carries an end carries the next claim of the same turn (T5)", async () => {
    for (const index of [0, 1]) {
      const cluster = await pair();
      const { queue } = cluster.member(index);
      await cluster.settled(queue.submit([task(), task()], context));
      const [first] = (await cluster.settled(queue.claim(claimOf("w"), 5_000, null))).tasks;
      if (first === undefined) throw new Error("nothing was claimed");
      const { attempt, fence } = first.lease;
      const end = { kind: "complete", result: null } as const;
      void queue.end("w", "tester", [{ task_id: first.id, attempt, fence, end }], null);
      const next = await cluster.settled(queue.claim(claimOf("w"), 5_000, null));
      expect(next.tasks).toHaveLength(1);
      const [ended, claimed] = cluster.commands().slice(-2);
      expect(new Set([ended?.command.type, claimed?.command.type])).toEqual(
        new Set(["claim", "end"]),
      );
      expect(ended?.index).toBe(claimed?.index ?? -1);
    }
  });

  test("after an election every waiting claim is offered anew, in pieces", async () => {
    const cluster = await pair();
    const follower = cluster.member(1);
    const polls = Array.from({ length: 1_000 }, (_, i) =>
      follower.queue.claim(claimOf(`w${i}`), 30_000, null),
    );
    await cluster.run(50);
    expect(cluster.member(0).queue.waiting().offers).toBe(1_000);
    await cluster.elect(1);
    await cluster.run(50);
    expect(cluster.member(0).queue.waiting().offers).toBe(0);
    expect(follower.queue.waiting().offers).toBe(1_000);
    const tasks = Array.from({ length: 1_000 }, () => task());
    await cluster.settled(cluster.member(0).queue.submit(tasks, context));
    const answers = await cluster.settled(Promise.all(polls));
    expect(answers.every((answer) => answer.tasks.length === 1)).toBe(true);
  });

  test("a request whose tasks have all ended is answered empty at once, not parked for ever", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    await cluster.settled(submitOne(cluster.member(0)));
    const claim = claimOf("w");
    const { tasks } = await cluster.settled(queue.claim(claim, 5_000, null));
    const [first] = tasks;
    if (first === undefined) throw new Error("nothing was claimed");
    const { attempt, fence } = first.lease;
    const end = { kind: "complete", result: null } as const;
    await cluster.settled(
      queue.end("w", "tester", [{ task_id: first.id, attempt, fence, end }], null),
    );
    const before = cluster.world.now;
    expect((await cluster.settled(queue.claim(claim, 5_000, null))).tasks).toEqual([]);
    expect(cluster.world.now - before).toBeLessThan(100);
  });

  test("a claim waits out an election and is served by the next leader", async () => {
    const cluster = new Cluster(3);
    await cluster.elect(0);
    const poll = cluster.member(2).queue.claim(claimOf("w"), 30_000, null);
    await cluster.run(100);
    cluster.depose();
    await cluster.run(500);
    await cluster.elect(1);
    await cluster.run(50);
    await cluster.settled(submitOne(cluster.member(0)));
    expect((await cluster.settled(poll)).tasks).toHaveLength(1);
  });

  test.each([0, 100, 30_000])(
    "without a leader a claim of %d ms is refused within the time of any request, never answered empty",
    async (waitMs) => {
      const cluster = await pair();
      cluster.depose();
      const poll = cluster.member(0).queue.claim(claimOf("w"), waitMs, null);
      expect(
        await cluster.settled(
          poll.catch((error: unknown) => error),
          6_000,
        ),
      ).toMatchObject({ reason: expect.stringMatching(/^no-(leader|quorum)$/) as unknown });
      expect(cluster.member(0).queue.waiting().claims).toBe(0);
    },
  );

  test("a claim that waited when the quorum went is refused, not held to the end of its time", async () => {
    const cluster = await pair();
    const { queue, id } = cluster.member(1);
    const refused = queue.claim(claimOf("w"), 60_000, null).catch((error: unknown) => error);
    // A member's own executors have nobody else to ask.
    const local = { member: id, boot: 1 };
    const own = queue.claim(claimOf("n2/1", { local }), 60_000, null);
    await cluster.run(100);
    cluster.depose();
    expect(await cluster.settled(refused, 6_000)).toMatchObject({ reason: "no-quorum" });
    await cluster.elect(0);
    await cluster.settled(submitOne(cluster.member(0)));
    expect((await cluster.settled(own)).tasks).toHaveLength(1);
    expect(cluster.member(0).machine.counts().Running).toBe(1);
  });

  test("a claim whose time ends during an election is answered by the next leader", async () => {
    for (const waitMs of [0, 200]) {
      const cluster = new Cluster(3);
      await cluster.elect(0);
      await cluster.settled(submitOne(cluster.member(0)));
      cluster.depose();
      const poll = cluster.member(2).queue.claim(claimOf("w"), waitMs, null);
      const empty = cluster.member(1).queue.claim(claimOf("v", { queues: ["none"] }), waitMs, null);
      await cluster.run(500);
      await cluster.elect(1);
      expect((await cluster.settled(poll)).tasks).toHaveLength(1);
      expect((await cluster.settled(empty)).tasks).toEqual([]);
    }
  });

  test("what an old leader claimed for a refused waiter goes back, and a repeat gets it", async () => {
    const cluster = await pair();
    const claim = claimOf("w");
    const refused = cluster
      .member(1)
      .queue.claim(claim, 60_000, null)
      .catch((error: unknown) => error);
    await cluster.run(100);
    cluster.depose();
    expect(await cluster.settled(refused, 6_000)).toMatchObject({ reason: "no-quorum" });
    await cluster.elect(0);
    await cluster.settled(submitOne(cluster.member(0)));
    const again = await cluster.settled(cluster.member(1).queue.claim(claim, 5_000, null));
    expect(again.tasks).toHaveLength(1);
  });

  test("a claim that does not wait gets what is ready, on any member, and is empty at once otherwise", async () => {
    const cluster = await pair();
    for (const index of [0, 1]) {
      const { queue } = cluster.member(index);
      const id = await cluster.settled(submitOne(cluster.member(0)));
      const { tasks } = await cluster.settled(queue.claim(claimOf("w"), 0, null));
      expect(tasks.map((claimed) => claimed.id)).toEqual([id]);
      const before = cluster.world.now;
      const none = await cluster.settled(queue.claim(claimOf("w"), 0, null));
      expect(none.tasks).toEqual([]);
      // A name that nobody named before goes into the log; what comes of that is known a round later.
      const named = claimOf("w", { names: [`new-${index}`] });
      expect((await cluster.settled(queue.claim(named, 0, null))).tasks).toEqual([]);
      expect(cluster.world.now - before).toBeLessThan(50);
    }
    await cluster.run(100);
    expect(cluster.member(0).queue.waiting().offers).toBe(0);
  });
});

describe("a waiter that is gone", () => {
  test("tasks claimed for an aborted waiter go back at once, free of charge", async () => {
    const cluster = await pair();
    const follower = cluster.member(1);
    const gone = new AbortController();
    const poll = follower.queue.claim(claimOf("w"), 30_000, gone.signal);
    await cluster.run(50);
    const submitted = submitOne(cluster.member(0));
    // The claim is in the entry already when the waiter leaves.
    await cluster.run(1);
    gone.abort();
    const id = await cluster.settled(submitted);
    expect((await cluster.settled(poll)).tasks).toEqual([]);
    await cluster.run(50);
    expect(cluster.commands().some(({ command }) => command.type === "claim")).toBe(true);
    expect(cluster.member(0).task(id)).toMatchObject({
      status: "Pending",
      detail: "ready",
      attempt: 1,
      retries: 0,
      crashes: 0,
    });
  });

  test("a withdrawn offer takes nothing later", async () => {
    const cluster = await pair();
    const gone = new AbortController();
    const poll = cluster.member(1).queue.claim(claimOf("w"), 30_000, gone.signal);
    await cluster.run(50);
    gone.abort();
    await cluster.settled(poll);
    await cluster.run(50);
    await cluster.settled(submitOne(cluster.member(0)));
    await cluster.run(1_000);
    expect(claimsIn(cluster)).toBe(0);
  });

  test("an offer that reaches the leader after its waiter left does not stay", async () => {
    const cluster = await pair();
    cluster.member(0).cut = true;
    const gone = new AbortController();
    const poll = cluster.member(1).queue.claim(claimOf("w"), 30_000, gone.signal);
    await cluster.run(20);
    gone.abort();
    await cluster.settled(poll);
    cluster.member(0).cut = false;
    await cluster.run(100);
    expect(cluster.member(0).queue.waiting().offers).toBe(0);
  });

  test("draining answers local waiters with terminate and sends outside workers elsewhere", async () => {
    const cluster = await single();
    const { queue, id } = cluster.member(0);
    const local = queue.claim(claimOf("n1/1", { local: { member: id, boot: 1 } }), 30_000, null);
    const outside = queue.claim(claimOf("w"), 30_000, null);
    await cluster.run(20);
    queue.beginDrain();
    expect(await cluster.settled(local)).toEqual({ tasks: [], directive: "terminate" });
    expect(await cluster.settled(outside)).toEqual({ tasks: [], directive: "ok" });
    const late = queue.claim(claimOf("w"), 30_000, null).catch((error: unknown) => error);
    expect(await cluster.settled(late)).toMatchObject({ reason: "stopping" });
    await cluster.settled(submitOne(cluster.member(0)));
    await cluster.run(100);
    expect(cluster.member(0).machine.counts().Pending).toBe(1);
  });
});

describe("many at once", () => {
  test("bursts of submits and claims at all members: each task goes to exactly one waiter", async () => {
    const cluster = new Cluster(3, {}, 42);
    await cluster.elect(0);
    const { prng } = cluster.world;
    const got = new Map<string, number>();
    let open = 0;
    const poll = (index: number, worker: string): void => {
      open += 1;
      void cluster
        .member(index)
        .queue.claim(claimOf(worker, { max: 1 + Math.floor(prng.float() * 4) }), 2_000, null)
        .then(({ tasks }) => {
          open -= 1;
          for (const { id } of tasks) got.set(id, (got.get(id) ?? 0) + 1);
          if (tasks.length > 0) poll(index, worker);
        });
    };
    for (let i = 0; i < 30; i++) poll(i % 3, `w${i}`);
    const submits: Promise<unknown>[] = [];
    for (let i = 0; i < 200; i++) {
      const queues = ["default", "mail", "video"];
      const size = 1 + Math.floor(prng.float() * 3);
      const tasks = Array.from({ length: size }, () =>
        task({ queue: prng.pick(queues), name: prng.pick(["a", "b", "c"]) }),
      );
      submits.push(cluster.member(i % 3).queue.submit(tasks, context));
      await cluster.run(Math.floor(prng.float() * 3));
    }
    await cluster.settled(Promise.all(submits));
    await cluster.run(4_000);
    expect(open).toBe(0);
    const { machine } = cluster.member(0);
    expect(machine.counts().Pending).toBe(0);
    expect(got.size).toBe(machine.counts().Running);
    expect([...got.values()].every((times) => times === 1)).toBe(true);
    // No more claims than tasks: none was proposed in vain.
    expect(claimsIn(cluster)).toBeLessThanOrEqual(got.size);
  });

  test("a member holds a bounded number of waits and refuses the rest", async () => {
    const cluster = await single();
    const { queue } = cluster.member(0);
    const polls: Promise<unknown>[] = [];
    for (let i = 0; i < 10_000; i++) polls.push(queue.claim(claimOf(`w${i}`), 1_000, null));
    const refused = queue.claim(claimOf("late"), 1_000, null).catch((error: unknown) => error);
    expect(await cluster.settled(refused)).toMatchObject({ reason: "overloaded" });
    await cluster.settled(Promise.all(polls));
    expect(queue.waiting().claims).toBe(0);
    expect(LIMITS.waitMs).toBe(60_000);
  });
});
