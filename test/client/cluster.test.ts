import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { FlotillaWorker } from "../../src/client/index.ts";
import { RealCluster } from "../cluster/harness.ts";
import { clientOf } from "./scripted-member.ts";

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await RealCluster.start({ args: ["--concurrency", "0"] });
}, 60_000);
afterAll(() => cluster.stop());

test("submits, waits and a worker go on while the leader is killed; every task is there once", async () => {
  const leader = await cluster.leader();
  // The leader first: its death is everybody's business.
  const members = [leader, ...(await cluster.followers())];
  using client = clientOf(members);
  const seen = new Map<number, number>();
  const worker = new FlotillaWorker({
    client,
    concurrency: 32,
    handlers: {
      double: (payload: number) => {
        seen.set(payload, (seen.get(payload) ?? 0) + 1);
        return payload * 2;
      },
    },
  });
  worker.start();
  const results: Promise<number>[] = [];
  let next = 0;
  const submit = async (): Promise<void> => {
    while (next < 400) {
      const n = next++;
      if (n === 150) await leader.kill();
      const handle = await client.enqueue<number>("double", n);
      results.push(handle.result());
    }
  };
  await Promise.all(Array.from({ length: 16 }, submit));
  expect((await Promise.all(results)).toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 400 }, (_, n) => n * 2),
  );
  const listed: unknown[] = [];
  for await (const task of client.list({ name: "double", page_size: 150 }))
    listed.push(task.payload);
  expect(listed.length).toBe(400);
  expect(new Set(listed).size).toBe(400);
  expect(seen.size).toBe(400);
  expect((await client.stats()).stats.Completed).toBe(400);
  expect((await client.cluster()).members).toHaveLength(3);
  await worker.stop();
  await leader.start();
}, 90_000);

const NODE = Bun.which("node");
test.skipIf(NODE === null)(
  "the client runs in Node, from one file without packages (needs node)",
  async () => {
    const built = await Bun.build({
      entrypoints: [join(import.meta.dir, "../../src/client/index.ts")],
      target: "node",
    });
    const [output] = built.outputs;
    if (output === undefined) throw new Error("nothing was built");
    const code = await output.text();
    expect(code).not.toMatch(/\bimport\b.*\bfrom\b|\brequire\(|\bBun\./);
    const file = join(cluster.folder, "client.mjs");
    await Bun.write(file, code);
    await Bun.write(
      join(cluster.folder, "use.mjs"),
      `import { FlotillaClient, FlotillaWorker } from "./client.mjs";
      const client = new FlotillaClient({ urls: ["http://127.0.0.1:1", ...process.argv.slice(2)] });
      const worker = new FlotillaWorker({ client, handlers: { shout: (text) => text.toUpperCase() } });
      worker.start();
      const handles = await Promise.all(["a", "b", "c"].map((text) => client.enqueue("shout", text)));
      const results = await Promise.all(handles.map((handle) => handle.result({ timeoutMs: 20_000 })));
      await worker.stop();
      console.log(JSON.stringify(results));`,
    );
    const child = Bun.spawn(
      [NODE ?? "", join(cluster.folder, "use.mjs"), ...cluster.members.map(({ url }) => url)],
      { stdout: "pipe", stderr: "pipe" },
    );
    const [said, complained] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    expect(complained).toBe("");
    expect(said).toBe('["A","B","C"]\n');
    // Nothing keeps the process alive once its work is done.
    expect(await child.exited).toBe(0);
  },
  60_000,
);
