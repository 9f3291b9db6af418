/**
 * This build beside another one: `bun test/cluster/mixed.ts FOLDER [--fixture FOLDER] [--seconds N]`.
 *
 * FOLDER is another checkout of the project, with its packages installed. Three members are started on its build; one
 * after the other is stopped and started on this one, under load; the first is taken back to the other build in
 * between, as an operator would who is in doubt. At the end every acknowledged task is Completed on every member, and
 * none of them says that states differ.
 *
 * `--fixture`: a folder with the data folders n1, n2 and n3, recorded with the other build; the tasks in it must be
 * there at the end too. `--seconds`: load in each phase, 5 by default. Ends with code 0 when all holds.
 */
import { cpSync, existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { IdMinter } from "../../src/client/uuid.ts";
import { type ClusterView, eventually, type Member, RealCluster, ROOT } from "./harness.ts";

const SUBMITTERS = 4;
/** A submit is repeated, under its own id, until it is answered. */
const ANSWER_MAX_MS = 30_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { fixture: { type: "string" }, seconds: { type: "string", default: "5" } },
});
const other = positionals[0] === undefined ? null : resolve(positionals[0]);
if (other === null || !existsSync(join(other, "src", "node.ts"))) {
  console.error("usage: bun test/cluster/mixed.ts FOLDER [--fixture FOLDER] [--seconds N]");
  console.error("FOLDER is a checkout of the project with its packages installed.");
  process.exit(2);
}

const ids = new IdMinter();
const acknowledged = new Set<string>();
const started = performance.now();

function say(text: string): void {
  console.log(`${((performance.now() - started) / 1_000).toFixed(1).padStart(6)} s  ${text}`);
}

/** One task, at whichever member answers; ids make a repeat harmless. */
async function submit(cluster: RealCluster, number: number): Promise<void> {
  const id = ids.mint(Date.now());
  const body = JSON.stringify({ id, name: "echo", payload: { number } });
  const headers = { "content-type": "application/json" };
  const deadline = performance.now() + ANSWER_MAX_MS;
  for (let i = number; ; i++) {
    const member = cluster.member(i % cluster.members.length);
    const answer = await fetch(`${member.url}/api/tasks`, { method: "POST", headers, body }).catch(
      () => null,
    );
    if (answer?.ok === true) {
      acknowledged.add(id);
      return;
    }
    if (answer !== null && answer.status < 500 && answer.status !== 429)
      throw new Error(`a submit was answered ${answer.status}: ${await answer.text()}`);
    if (performance.now() > deadline) throw new Error("a submit was not answered in time");
    await Bun.sleep(50);
  }
}

/** Submits while `work` is done, and for `seconds` more. */
async function underLoad(cluster: RealCluster, seconds: number, work: () => Promise<void>) {
  const before = acknowledged.size;
  const submitting = { on: true };
  const submitters = Array.from({ length: SUBMITTERS }, async (_, n) => {
    for (let i = n; submitting.on; i += SUBMITTERS) await submit(cluster, i);
  });
  const both = Promise.all(submitters);
  await Promise.race([work().then(() => Bun.sleep(seconds * 1_000)), both]);
  submitting.on = false;
  await both;
  say(`  ${acknowledged.size - before} tasks acknowledged meanwhile`);
}

async function change(cluster: RealCluster, member: Member, root: string): Promise<void> {
  say(`${member.id} is started on ${root === ROOT ? "this build" : "the other build"}`);
  const code = await member.kill("SIGTERM");
  if (code !== 0)
    throw new Error(`${member.id} ended with ${code}: ${member.output.slice(-2_000)}`);
  member.root = root;
  await member.start();
  await eventually("the member to be ready", async () => (await member.fetch("/health/ready")).ok);
  await cluster.leader();
}

/** Every task that was acknowledged, on every member's own state. */
async function check(cluster: RealCluster): Promise<void> {
  for (const member of cluster.members) {
    for (const id of acknowledged) {
      await eventually(`${id} on ${member.id}`, async () => {
        const answer = await member.fetch(`/api/tasks/${id}?consistency=stale`);
        if (!answer.ok) return false;
        const { status } = (await answer.json()) as { status: string };
        if (status === "Failed" || status === "Cancelled") throw new Error(`${id} is ${status}`);
        return status === "Completed";
      });
    }
    const { alarms = [] } = await member.json<{ alarms?: readonly unknown[] }>("/health");
    if (alarms.length > 0) throw new Error(`${member.id} raises ${JSON.stringify(alarms)}`);
    say(`${member.id} has all ${acknowledged.size} tasks, Completed`);
  }
}

async function recorded(cluster: RealCluster): Promise<number> {
  const [first] = cluster.members;
  const answer = await first?.json<{ total_tasks: number }>("/api/stats");
  return answer?.total_tasks ?? 0;
}

const seconds = Number(values.seconds);
const cluster = await RealCluster.create({ args: ["--concurrency", "4", "--log-level", "warn"] });
try {
  for (const member of cluster.members) {
    member.root = other;
    if (values.fixture === undefined) continue;
    cpSync(join(values.fixture, member.id), join(cluster.folder, member.id), { recursive: true });
  }
  say("three members are started on the other build");
  await Promise.all(cluster.members.map((member) => member.start()));
  await cluster.leader();
  const before = await recorded(cluster);
  if (before > 0) say(`the recorded folders hold ${before} tasks`);
  const [n1, n2, n3] = [cluster.member(0), cluster.member(1), cluster.member(2)];
  const steps: readonly [Member, string][] = [
    [n1, ROOT],
    [n2, ROOT],
    [n1, other],
    [n1, ROOT],
    [n3, ROOT],
  ];
  await underLoad(cluster, seconds, async () => undefined);
  for (const [member, root] of steps)
    await underLoad(cluster, seconds, () => change(cluster, member, root));
  await check(cluster);
  const total = await recorded(cluster);
  if (total < before + acknowledged.size)
    throw new Error(`${total} tasks are left of ${before} recorded and ${acknowledged.size} new`);
  const view = await n1.json<ClusterView & { machine_version: unknown }>("/api/cluster");
  say(`all is as it should be; machine version ${JSON.stringify(view.machine_version)}`);
} catch (error) {
  for (const { id, output } of cluster.members) console.error(`--- ${id}\n${output.slice(-3_000)}`);
  console.error(error);
  process.exitCode = 1;
} finally {
  await cluster.stop();
}
