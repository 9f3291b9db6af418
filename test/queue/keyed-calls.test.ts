/** Calls with an Idempotency-Key at the members of a cluster: used twice, at once, and across failovers. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Command } from "../../src/queue/commands.ts";
import type { KeyedClaim } from "../../src/queue/keyed-calls.ts";
import { QueueError } from "../../src/queue/service.ts";
import type { Claim, ClaimedTask, IdempotencyScope, LeaseRef } from "../../src/queue/types.ts";
import { Cluster } from "./fake-consensus.ts";
import { claimOf, context, PRINCIPAL, submitOne, task } from "./service-harness.ts";

setDefaultTimeout(30_000);

async function cluster(size: number): Promise<Cluster> {
  const made = new Cluster(size);
  await made.elect(0);
  return made;
}

const scope = (key: string, hash = "h"): IdempotencyScope => ({
  principal: PRINCIPAL,
  route: "POST /api/leases/x",
  key,
  hash,
});

/** As the API makes it: the same worker and request for the same key. */
const keyed = (key: string, more: Partial<Claim> = {}): KeyedClaim => ({
  ...claimOf("w", { request_id: `key-${key}`, ...more }),
  idem: scope(key),
});

const refOf = ({ id, lease: { attempt, fence } }: ClaimedTask): LeaseRef => ({
  task_id: id,
  attempt,
  fence,
});

const count = (made: Cluster, type: Command["type"]): number =>
  made.commands().filter(({ command }) => command.type === type).length;

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => null,
    (error: unknown) => error,
  );

const end = { kind: "complete", result: "1" } as const;

describe("a claim under a key", () => {
  test("is answered with its first tasks at any member, after they ended, a clear and an election", async () => {
    const made = await cluster(3);
    await made.settled(submitOne(made.member(0)));
    await made.settled(submitOne(made.member(0)));
    const first = await made.settled(made.member(1).queue.claim(keyed("k"), 5_000, null));
    expect(first).toMatchObject({ directive: "ok", replayed: false });
    expect(first.tasks).toHaveLength(1);
    const [claimed] = first.tasks;
    if (claimed === undefined) throw new Error("nothing was claimed");
    await made.settled(
      made.member(0).queue.end("w", PRINCIPAL, [{ ...refOf(claimed), end }], null),
    );
    await made.settled(made.member(0).queue.clear("Completed", context));
    await made.elect(2);
    await made.run(2_000);
    for (const at of [0, 1, 2]) {
      const again = await made.settled(made.member(at).queue.claim(keyed("k"), 5_000, null));
      expect(again).toEqual({ ...first, replayed: true });
    }
    expect(made.member(0).machine.counts()).toMatchObject({ Pending: 1, Running: 0 });
    const other = { ...keyed("k"), idem: scope("k", "other") };
    expect(
      await made.settled(failure(made.member(1).queue.claim(other, 5_000, null))),
    ).toMatchObject({ reason: "idempotency-mismatch" });
  });

  test("by two clients at once, at one member and at two, takes one set and answers both with it", async () => {
    const made = await cluster(3);
    const waits = [0, 1, 1, 2].map((at) =>
      made.member(at).queue.claim(keyed("k", { max: 2 }), 20_000, null),
    );
    await made.run(1_000);
    for (let n = 0; n < 5; n++) await made.settled(submitOne(made.member(2)));
    const [first, ...others] = await made.settled(Promise.all(waits));
    expect(first?.tasks.length).toBeGreaterThan(0);
    for (const other of others) expect(other.tasks).toEqual(first?.tasks ?? []);
    expect(made.member(0).machine.counts().Running).toBe(first?.tasks.length ?? 0);
  });

  test("that found nothing waits again; another body while it waits is refused", async () => {
    const made = await cluster(2);
    const { queue } = made.member(1);
    expect((await made.settled(queue.claim(keyed("k"), 1_000, null))).tasks).toEqual([]);
    const waiting = queue.claim(keyed("k"), 10_000, null);
    await made.run(100);
    const other = { ...keyed("k"), idem: scope("k", "other") };
    expect(await made.settled(failure(queue.claim(other, 1_000, null)))).toBeInstanceOf(QueueError);
    const id = await made.settled(submitOne(made.member(0)));
    expect((await made.settled(waiting)).tasks.map((one) => one.id)).toEqual([id]);
  });

  test("whose client went away keeps its tasks for the repeat, at another member too", async () => {
    const made = await cluster(3);
    const gone = new AbortController();
    const lost = made.member(1).queue.claim(keyed("k"), 20_000, gone.signal);
    await made.run(50);
    // The claim is in the log already when its client leaves.
    const submitted = submitOne(made.member(0));
    await made.run(2);
    gone.abort();
    await made.settled(Promise.all([lost, submitted]));
    await made.run(1_000);
    const again = await made.settled(made.member(2).queue.claim(keyed("k"), 5_000, null));
    const [held] = again.tasks;
    if (held === undefined) throw new Error("the repeat got nothing");
    const ended = made.member(0).queue.end("w", PRINCIPAL, [{ ...refOf(held), end }], null);
    expect(await made.settled(ended)).toEqual(["ok"]);
  });

  test("that was given up while it was being answered leaves its repeat alone", async () => {
    // At whatever moment the log stands still, and the client tries again at the same member.
    for (let stopAt = 0; stopAt < 16; stopAt++) {
      const made = await cluster(3);
      await made.settled(submitOne(made.member(0)));
      const { queue } = made.member(1);
      // Answered without the key, so its repeats under it are read first, and then kept.
      const plain = claimOf("w", { request_id: "key-k" });
      const { tasks } = await made.settled(queue.claim(plain, 5_000, null));
      const gone = new AbortController();
      const lost = queue.claim(keyed("k"), 20_000, gone.signal);
      await made.run(stopAt);
      made.quorum = false;
      await made.run(20);
      gone.abort();
      const again = queue.claim(keyed("k"), 20_000, null);
      await made.run(20);
      made.quorum = true;
      expect((await made.settled(again, 30_000)).tasks).toEqual(tasks);
      await made.settled(lost);
    }
  });

  test("of a request that was answered without a key gives what is still leased, and keeps that", async () => {
    const made = await cluster(2);
    const { queue } = made.member(1);
    await made.settled(submitOne(made.member(0)));
    const plain = claimOf("w");
    const { tasks } = await made.settled(queue.claim(plain, 5_000, null));
    const under = { ...plain, idem: scope("k") };
    const first = await made.settled(queue.claim(under, 5_000, null));
    expect(first.tasks).toEqual(tasks);
    const refs = tasks.map((one) => ({ ...refOf(one), end }));
    await made.settled(queue.end("w", PRINCIPAL, refs, null));
    const again = await made.settled(made.member(0).queue.claim(under, 5_000, null));
    expect(again).toMatchObject({ tasks: first.tasks, replayed: true });
  });
});

describe("a heartbeat under a key", () => {
  test("is answered as first, though the lease is over, and keeps none alive", async () => {
    const made = await cluster(3);
    const id = await made.settled(submitOne(made.member(0), { timeout_ms: null }));
    const { tasks } = await made.settled(made.member(1).queue.claim(claimOf("w"), 5_000, null));
    const refs = tasks.map(refOf);
    const beat = (at: number, hash = "h") =>
      made.member(at).queue.keyed.heartbeat(scope("k", hash), "w", refs);
    const first = await made.settled(beat(1));
    expect(first).toEqual({ value: { verdicts: ["ok"], directive: "ok" }, replayed: false });
    for (let n = 0; n < 6; n++) {
      await made.run(5_000);
      expect(await made.settled(beat(n % 3))).toEqual({ ...first, replayed: true });
    }
    expect(made.member(0).task(id).status).toBe("Pending");
    await made.elect(1);
    expect(await made.settled(beat(0))).toEqual({ ...first, replayed: true });
    expect(await made.settled(failure(beat(0, "other")))).toMatchObject({
      reason: "idempotency-mismatch",
    });
  });

  test("by two clients at once is answered alike", async () => {
    const made = await cluster(3);
    await made.settled(submitOne(made.member(0)));
    const { tasks } = await made.settled(made.member(1).queue.claim(claimOf("w"), 5_000, null));
    const beats = [0, 1, 2].map((at) =>
      made.member(at).queue.keyed.heartbeat(scope("k"), "w", tasks.map(refOf)),
    );
    const answers = await made.settled(Promise.all(beats));
    for (const { value } of answers) expect(value).toEqual({ verdicts: ["ok"], directive: "ok" });
    expect(answers.filter(({ replayed }) => !replayed)).toHaveLength(1);
  });

  test("without a key costs no log entry", async () => {
    const made = await cluster(1);
    await made.settled(made.member(0).queue.heartbeat("w", PRINCIPAL, []));
    expect(count(made, "remember")).toBe(0);
  });
});

test("quieting under a key is done once, and an unknown worker is not remembered", async () => {
  const made = await cluster(2);
  const { queue } = made.member(1);
  const quiet = () => made.settled(queue.keyed.quiet(scope("k"), "w"));
  expect(await quiet()).toEqual({ value: false, replayed: false });
  await made.settled(queue.heartbeat("w", PRINCIPAL, []));
  expect(await quiet()).toEqual({ value: true, replayed: false });
  await made.elect(1);
  expect(await quiet()).toEqual({ value: true, replayed: true });
});

test("ends and reports under a key say whether they were the first, and happen once", async () => {
  const made = await cluster(2);
  const { keyed: calls } = made.member(1).queue;
  await made.settled(submitOne(made.member(0)));
  const { tasks } = await made.settled(made.member(0).queue.claim(claimOf("w"), 5_000, null));
  const refs = tasks.map(refOf);
  const lines = () =>
    calls.report(
      scope("a"),
      "w",
      refs.map((ref) => ({ ...ref, progress: null, lines: ["x"] })),
    );
  expect(await made.settled(lines())).toEqual({ value: ["ok"], replayed: false });
  expect(await made.settled(lines())).toEqual({ value: ["ok"], replayed: true });
  const ends = () =>
    calls.end(
      scope("b"),
      "w",
      refs.map((ref) => ({ ...ref, end })),
    );
  expect(await made.settled(ends())).toEqual({ value: ["ok"], replayed: false });
  const id = refs[0]?.task_id ?? "";
  const logs = await made.settled(made.member(0).queue.logs(id, null, 9, "linearizable"));
  expect(logs.lines).toHaveLength(1);
  await made.settled(made.member(0).queue.clear(null, context));
  expect(await made.settled(ends())).toEqual({ value: ["ok"], replayed: true });
});

test("a submit under a key is answered again though the disk takes no new tasks", async () => {
  let full = false;
  const made = new Cluster(1, { admission: () => (full ? "low-disk" : null) });
  await made.elect(0);
  const { queue } = made.member(0);
  const under = { ...context, idempotency: scope("k") };
  const submit = () => queue.submit([task({ payload: '"p"' })], under);
  const first = await made.settled(submit());
  expect(first.tasks).toMatchObject([{ payload: '"p"', status: "Pending" }]);
  full = true;
  await made.settled(queue.claim(claimOf("w"), 1_000, null));
  expect(await made.settled(submit())).toEqual({ ...first, replayed: true });
  expect(await made.settled(failure(submitOne(made.member(0))))).toMatchObject({
    reason: "low-disk",
  });
});

describe("log lines somebody waits for", () => {
  test("are answered after a round through the log, one call after another", async () => {
    const made = await cluster(2);
    await made.settled(submitOne(made.member(0)));
    const { queue } = made.member(1);
    const { tasks } = await made.settled(queue.claim(claimOf("w"), 5_000, null));
    const refs = tasks.map(refOf);
    const since = made.world.now;
    for (let n = 0; n < 10; n++) {
      const items = refs.map((ref) => ({ ...ref, progress: null, lines: [`${n}`] }));
      expect(await made.settled(queue.report("w", PRINCIPAL, items, true))).toEqual(["ok"]);
    }
    // Virtual time, so exact: ten rounds, no second in between.
    expect(made.world.now - since).toBeLessThan(500);
    expect(count(made, "report")).toBe(10);
  });

  test("gather while a command is under way: many at once are few entries, in order", async () => {
    const made = await cluster(2);
    await made.settled(submitOne(made.member(0)));
    const { queue } = made.member(1);
    const { tasks } = await made.settled(queue.claim(claimOf("w"), 5_000, null));
    const [ref] = tasks.map(refOf);
    if (ref === undefined) throw new Error("nothing was claimed");
    const answers: Promise<readonly string[]>[] = [];
    for (let n = 0; n < 100; n++) {
      const item = { ...ref, progress: null, lines: [`${n}`] };
      answers.push(queue.report("w", PRINCIPAL, [item], true));
      if (n % 20 === 0) await made.run(1);
    }
    await made.settled(Promise.all(answers));
    expect(count(made, "report")).toBeLessThanOrEqual(5);
    const { lines } = await made.settled(queue.logs(ref.task_id, null, 200, "linearizable"));
    expect(lines?.map(({ line }) => line)).toEqual(Array.from({ length: 100 }, (_, n) => `${n}`));
    await made.run(5_000);
    expect(queue.waiting().reports).toBe(0);
  });
});
