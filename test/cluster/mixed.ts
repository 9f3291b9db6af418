/**
 * This build beside another one: `bun test/cluster/mixed.ts [FOLDER] [--fixture] [--seconds N]`.
 *
 * FOLDER is another checkout of the project, with its packages installed; without one, the build that recorded the
 * folders in `fixtures/` is taken out of git. Three members are started on it; one after the other is stopped and
 * started on this one, under load; the first is taken back to the other build in between, as an operator would who is in
 * doubt. Then, still under load, the machine version is raised by itself; a setting that came with it is refused in words
 * before and taken after. At the end every acknowledged task is Completed on every member, the members have compared
 * what they applied (chains) and hold (rows) behind all of that, and none of them says that states differ.
 *
 * `--fixture`: the members begin on the recorded folders, and what those held must be there at the end too. `--seconds`:
 * load in each phase, 5 by default. Ends with code 0 when all holds.
 */
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { IdMinter } from "../../src/client/uuid.ts";
import { LOG_TAIL_SINCE } from "../../src/queue/settings.ts";
import { checkOut, fixtureAbout, gitHas, keptOf, unpackFixture } from "./fixture.ts";
import {
  type ClusterView,
  eventually,
  type Member,
  RealCluster,
  ROOT,
  type TaskJson,
} from "./harness.ts";

const SUBMITTERS = 4;
const TAIL_BYTES = 64 * 1024 * 1024;
/** A submit is repeated, under its own id, until it is answered. */
const ANSWER_MAX_MS = 30_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { fixture: { type: "boolean" }, seconds: { type: "string", default: "5" } },
});
const temporary = await mkdtemp(join(tmpdir(), "flotilla-other-"));
const other = await otherBuild(positionals[0]);

const ids = new IdMinter();
const acknowledged = new Set<string>();
const started = performance.now();

/** @returns its folder; ends the process when there is none */
async function otherBuild(given: string | undefined): Promise<string> {
  if (given !== undefined && existsSync(join(given, "src", "node.ts"))) return resolve(given);
  const about = await fixtureAbout();
  if (given === undefined && about !== null && (await gitHas(about.commit))) {
    const folder = join(temporary, "checkout");
    await checkOut(about.commit, folder);
    return folder;
  }
  console.error("usage: bun test/cluster/mixed.ts [FOLDER] [--fixture] [--seconds N]");
  console.error(
    given === undefined
      ? `git does not have the commit ${about?.commit}, which recorded the folders: give the FOLDER of a checkout`
      : `${given} is no checkout of the project`,
  );
  await rm(temporary, { recursive: true, force: true });
  process.exit(2);
}

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

interface MachineVersion {
  readonly in_force: number;
  readonly newest: number;
}

async function machineVersion(member: Member): Promise<MachineVersion> {
  const view = await member.json<ClusterView & { machine_version: MachineVersion }>("/api/cluster");
  return view.machine_version;
}

/** @returns status and body */
async function putSettings(member: Member, change: object): Promise<readonly [number, string]> {
  const answer = await member.fetch("/api/cluster/config", {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(change),
  });
  return [answer.status, await answer.text()];
}

/** A setting of machine version 2, asked for at a member that knows it. */
function shorterTail(member: Member): Promise<readonly [number, string]> {
  return putSettings(member, { log_tail: { max_bytes: TAIL_BYTES } });
}

/** What every build knows must be applied by all of them alike, to the byte: it is part of the chain. */
async function changesOldSetting(member: Member): Promise<void> {
  await eventually("a setting to be changed", async () => {
    const [status] = await putSettings(member, { max_crashes: 3 + (acknowledged.size % 5) });
    return status === 200;
  });
}

async function refusesNewSetting(member: Member): Promise<void> {
  if ((await machineVersion(member)).in_force >= LOG_TAIL_SINCE) return;
  const [status, text] = await shorterTail(member);
  if (
    status !== 409 ||
    !text.includes(`start every member with a build that applies ${LOG_TAIL_SINCE}`)
  )
    throw new Error(`a setting of a version that is not in force was answered ${status}: ${text}`);
  say(`${member.id} refuses a setting of machine version ${LOG_TAIL_SINCE}: 409`);
}

/** Waits for the newest version, and uses what came with it. */
async function usesNewVersion(cluster: RealCluster): Promise<void> {
  const [asked] = cluster.members;
  if (asked === undefined) return;
  await eventually(
    "the newest machine version to be in force",
    async () => {
      const { in_force, newest } = await machineVersion(asked);
      return in_force === newest;
    },
    60_000,
  );
  const [status, text] = await shorterTail(asked);
  if (status !== 200) throw new Error(`the new setting was answered ${status}: ${text}`);
  for (const member of cluster.members) {
    const { log_tail } = await member.json<{ log_tail?: { max_bytes: number } }>(
      "/api/cluster/config",
    );
    if (log_tail?.max_bytes !== TAIL_BYTES) throw new Error(`${member.id} has another setting`);
  }
  say("the newest machine version is in force, and a setting of it on every member");
}

/** Every member compared its state with the others', behind everything that was done so far. */
async function compared(cluster: RealCluster): Promise<void> {
  const [asked] = cluster.members;
  const { applied_index } = (await asked?.json<ClusterView>("/api/cluster")) ?? {};
  for (const member of cluster.members) {
    await eventually(`${member.id} to compare its state`, async () => {
      const text = await (await member.fetch("/metrics")).text();
      const index = Number(/^flotilla_consistency_index (.*)$/m.exec(text)?.[1]);
      return index >= (applied_index ?? 0);
    });
  }
  // The verdict of that round comes a moment after the words.
  await Bun.sleep(3_000);
  // A member that was found wrong on the way has taken the state of the others by now, and raises no alarm any more.
  for (const { id } of cluster.members) {
    const evidence = readdirSync(join(cluster.folder, id)).filter((name) =>
      /^(CONDEMNED|wrong-state-)/.test(name),
    );
    if (evidence.length > 0) throw new Error(`the state of ${id} was wrong: ${evidence.join()}`);
  }
  say(`every member has compared its state at index ${applied_index} or behind it`);
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

/** What the recorded folders held, on every member's own state. */
async function checkRecorded(cluster: RealCluster, tasks: readonly TaskJson[]): Promise<void> {
  for (const member of cluster.members) {
    for (const task of tasks) {
      const now = await member.json<TaskJson>(`/api/tasks/${task.id}?consistency=stale`);
      for (const [field, value] of Object.entries(keptOf(task))) {
        if (!Bun.deepEquals(now[field as keyof TaskJson], value))
          throw new Error(
            `${task.id} on ${member.id}: ${field} was ${JSON.stringify(value)} and is ${JSON.stringify(now[field as keyof TaskJson])}`,
          );
      }
    }
    say(`${member.id} has all ${tasks.length} tasks of the recorded folders`);
  }
}

const seconds = Number(values.seconds);
const cluster = await RealCluster.create({ args: ["--concurrency", "4", "--log-level", "warn"] });
try {
  for (const member of cluster.members) member.root = other;
  const recorded = values.fixture === true ? await unpackFixture(cluster.folder) : [];
  say("three members are started on the other build");
  await Promise.all(cluster.members.map((member) => member.start()));
  await cluster.leader();
  const [n1, n2, n3] = [cluster.member(0), cluster.member(1), cluster.member(2)];
  const steps: readonly [Member, string][] = [
    [n1, ROOT],
    [n2, ROOT],
    [n1, other],
    [n1, ROOT],
    [n3, ROOT],
  ];
  await underLoad(cluster, seconds, async () => undefined);
  for (const [member, root] of steps) {
    await underLoad(cluster, seconds, async () => {
      await change(cluster, member, root);
      await changesOldSetting(member);
      if (root === ROOT) await refusesNewSetting(member);
    });
  }
  await underLoad(cluster, seconds, () => usesNewVersion(cluster));
  await compared(cluster);
  await check(cluster);
  if (recorded.length > 0) await checkRecorded(cluster, recorded);
  say(`all is as it should be; machine version ${JSON.stringify(await machineVersion(n1))}`);
} catch (error) {
  for (const { id, output } of cluster.members) console.error(`--- ${id}\n${output.slice(-3_000)}`);
  console.error(error);
  process.exitCode = 1;
} finally {
  await cluster.stop();
  await rm(temporary, { recursive: true, force: true });
}
