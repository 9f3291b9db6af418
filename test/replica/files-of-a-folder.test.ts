/** Log and state of one folder belong together (S2): what contradicts itself does not start, and says what to do. */
import { beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Cluster, commandOf, type Node } from "./cluster.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const ADVICE =
  "the files of this folder do not belong together; remove this member and add it again";

let cluster: Cluster;
let victim: Node;

async function write(count: number): Promise<void> {
  let left = count;
  for (let i = 0; i < count; i++) {
    void cluster
      .leader()
      ?.replica?.submit(commandOf({ i }), { timeoutMs: 10_000 })
      .then(() => (left -= 1));
  }
  await cluster.run(10_000, () => left === 0);
  expect(left).toBe(0);
}

const started = (): Promise<string> => cluster.start(victim).then(() => "it starts", String);

beforeEach(async () => {
  cluster = new Cluster(1, 3);
  await cluster.startAll();
  await write(20);
  const found = cluster.nodes.find((node) => node !== cluster.leader());
  if (found === undefined) throw new Error("no follower");
  victim = found;
  await cluster.run(2_000);
  cluster.kill(victim);
});

describe("a folder", () => {
  test("starts with a state that is anywhere in the log", async () => {
    const whole = victim.machine.image();
    victim.image = null;
    expect(await started()).toBe("it starts");
    cluster.kill(victim);
    victim.image = whole;
    expect(await started()).toBe("it starts");
  });

  test("does not start with a state that is ahead of its log", async () => {
    await write(20);
    victim.image = cluster.leader()?.machine.image() ?? null;
    expect(await started()).toContain(ADVICE);
  });

  test("does not start with a state that ends before its log begins", async () => {
    const { index } = victim.machine.applied();
    victim.disk.compact(index, victim.disk.entries.at(-1)?.term ?? victim.machine.applied().term);
    victim.image = null;
    expect(await started()).toContain(ADVICE);
  });

  test("does not start with a state that was built from another entry than its log has there", async () => {
    const text = new TextDecoder().decode(victim.machine.image());
    const { term } = victim.machine.applied();
    expect(text).toContain(`"term":${term}`);
    victim.image = new TextEncoder().encode(text.replace(`"term":${term}`, `"term":${term + 1}`));
    expect(await started()).toContain(ADVICE);
  });
});
