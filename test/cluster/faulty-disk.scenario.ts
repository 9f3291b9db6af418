/** Real members whose disks are slow, hang, or fail (test/tools/faulty-disk.c; docs/storage.md). */
import { expect } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type ClusterView,
  eventually,
  type Member,
  RealCluster,
  type TaskJson,
} from "./harness.ts";
import { scenario } from "./scenario.ts";

const SOURCE = join(import.meta.dir, "..", "tools", "faulty-disk.c");

/** All of it: `bun run test:disk`; the tests of every day take the first of each kind. */
const all = process.env["DISK_FAULTS"] === "1";
const may = process.platform === "linux" && Bun.which("gcc") !== null;

let cluster: RealCluster;

/** Members whose disks do what their control files say. */
async function start(): Promise<void> {
  cluster = await RealCluster.create({ args: ["--concurrency", "0", "--request-timeout", "4s"] });
  const library = join(cluster.folder, "faulty-disk.so");
  const words = ["gcc", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl", "-lpthread"];
  expect(Bun.spawnSync(words).success).toBe(true);
  for (const member of cluster.members) {
    fault(member, "");
    member.wrapper = ["env", `LD_PRELOAD=${library}`, `FAULTY_DISK=${controlOf(member)}`];
  }
  await Promise.all(cluster.members.map((member) => member.start()));
  await cluster.leader();
}

function controlOf(member: Member): string {
  return join(cluster.folder, `${member.id}.fault`);
}

/** What is wrong with the member's disk from now on; "": nothing. */
function fault(member: Member, line: string): void {
  writeFileSync(controlOf(member), line);
}

const ids: string[] = [];

/** A task that `member` takes, sooner or later. */
async function submit(member: Member): Promise<void> {
  const { id } = await eventually(`${member.id} to take a task`, () =>
    member.post<TaskJson>("/api/tasks", { name: "nobody" }).catch(() => null),
  );
  ids.push(id);
}

/** The leader that the members but `except` agree on. */
function leaderBeside(except: Member): Promise<Member> {
  return eventually("another leader", async () => {
    for (const member of cluster.members) {
      if (member === except) continue;
      const view = await member.json<ClusterView>("/api/cluster?consistency=stale");
      if (view.role === "leader") return member;
    }
    return null;
  });
}

async function holdsEverything(member: Member): Promise<void> {
  for (const id of ids) expect((await member.json<TaskJson>(`/api/tasks/${id}`)).id).toBe(id);
}

function isHealthy(member: Member): Promise<unknown> {
  return eventually(`${member.id} to be healthy`, async () => (await member.fetch("/health")).ok);
}

/** A leader whose disk hangs, or is slow, hands over, and serves again when it is quick. */
async function handsOver(line: string): Promise<void> {
  const leader = await cluster.leader();
  await submit(leader);
  fault(leader, line);
  // It finds out when it writes.
  void leader.post("/api/tasks", { name: "nobody" }).catch(() => null);
  const next = await leaderBeside(leader);
  for (const member of cluster.members) if (member !== leader) await submit(member);
  await eventually("the member to say so", async () => {
    const health = await leader.fetch("/health");
    return health.status === 503 && (await health.text()).includes("the disk has not answered");
  });
  expect((await next.json<ClusterView>("/api/cluster")).role).toBe("leader");
  fault(leader, "");
  await isHealthy(leader);
  await submit(leader);
  await holdsEverything(leader);
}

/** A failed write or sync: the process ends, believes nothing that it wrote, and starts again. */
async function endsAndStartsAgain(line: string, said: string): Promise<void> {
  const [member] = await cluster.followers();
  if (member === undefined) throw new Error("no follower");
  const child = member.process;
  member.output = "";
  fault(member, line);
  const leader = await cluster.leader();
  const writing = new AbortController();
  const load = (async () => {
    while (!writing.signal.aborted) {
      await submit(leader);
      await Bun.sleep(50);
    }
  })();
  expect(await child?.exited).toBe(1);
  writing.abort();
  await load;
  expect(member.output).toContain(said);
  // The disk would have "succeeded" from then on; the process did not try.
  fault(member, "");
  await member.start();
  await isHealthy(member);
  await holdsEverything(member);
}

const KINDS = all ? "hangs, is slow, and fails a sync or a write" : "hangs, and fails a sync";
scenario(
  `a disk that ${KINDS}: hands over, and serves again when it is quick; or the process ends, believes nothing that it wrote, and starts again (needs gcc)`,
  async () => {
    try {
      await start();
      await handsOver("hang-sync log.db 0");
      if (all) await handsOver("slow-sync log.db 3000");
      await endsAndStartsAgain("fail-sync log.db 1", "the log cannot be written");
      if (!all) return;
      await endsAndStartsAgain("fail-write log.db 1", "the log cannot be written");
      await endsAndStartsAgain("fail-sync state- 1", "the state checkpoint failed");
    } finally {
      await cluster?.stop();
    }
  },
  { skip: !may },
);
