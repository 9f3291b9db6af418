import { describe, expect, test } from "bun:test";
import type { LeaseEnd } from "../../src/queue/types.ts";
import { Cluster } from "./fake-consensus.ts";
import { claimOf, PRINCIPAL, submitOne } from "./service-harness.ts";

const FAILED: LeaseEnd = {
  kind: "fail",
  error: { type: "Error", message: "no", stack: null, retryable: false },
  retry_after_ms: null,
  crashed: false,
};

describe("what a worker reports just before it ends an attempt", () => {
  for (const end of [{ kind: "complete", result: null } as const, FAILED]) {
    test(`is kept: ${end.kind}, at a follower`, async () => {
      const made = new Cluster(2);
      await made.elect(0);
      const { queue } = made.member(1);
      const id = await made.settled(submitOne(made.member(1)));
      const { tasks } = await made.settled(queue.claim(claimOf("w"), 5_000, null));
      const lease = tasks[0]?.lease;
      if (lease === undefined) throw new Error("nothing was claimed");
      const ref = { task_id: id, attempt: lease.attempt, fence: lease.fence };
      const report = (line: string, percent: number): Promise<unknown> =>
        queue.report("w", PRINCIPAL, [
          { ...ref, progress: { percent, message: null }, lines: [line] },
        ]);
      const first = report("one", 10);
      await made.settled(first);
      // Within the second in which reports are gathered; nobody waits for their answers.
      const answers = [report("two", 50), report("three", 100)];
      const ended = await made.settled(queue.end("w", PRINCIPAL, [{ ...ref, end }], null));
      expect(ended).toEqual(["ok"]);
      expect(await made.settled(Promise.all(answers))).toEqual([["ok"], ["ok"]]);
      const { lines } = await made.settled(queue.logs(id, null, 100, "linearizable"));
      expect(lines?.map(({ line }) => line)).toEqual(["one", "two", "three"]);
      const { task } = await made.settled(queue.get(id, "linearizable"));
      expect(task?.progress?.percent).toBe(100);
    });
  }
});
