/** Bits that flip in the files of real members, while they are down (docs/storage.md). */
import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import {
  type ClusterView,
  eventually,
  type Member,
  RealCluster,
  type TaskJson,
} from "./harness.ts";

setDefaultTimeout(60_000);

let cluster: RealCluster;
const ids: string[] = [];

beforeAll(async () => {
  cluster = await RealCluster.start({ args: ["--concurrency", "0"] });
  await submit(20);
});
afterAll(() => cluster.stop());

async function submit(count: number): Promise<void> {
  const leader = await cluster.leader();
  for (let i = 0; i < count; i++) {
    const task = await leader.post<TaskJson>("/api/tasks", { name: "nobody", payload: { i } });
    ids.push(task.id);
  }
}

function folderOf(member: Member): string {
  return join(cluster.folder, member.id);
}

/** Changes a file of a member that is down, behind its back. */
function tamper(member: Member, sql: string): void {
  const db = new Database(join(folderOf(member), "log.db"), { strict: true });
  db.run(sql);
  db.close(true);
}

/** The member answers by itself, and holds every task. */
async function isWhole(member: Member): Promise<void> {
  const leader = await cluster.leader();
  await eventually(`${member.id} to catch up`, async () => {
    const [own, theirs] = await Promise.all(
      [member, leader].map((each) => each.json<ClusterView>("/api/cluster?consistency=stale")),
    );
    return own !== undefined && own.applied_index >= (theirs?.commit_index ?? Infinity);
  });
  for (const id of ids) {
    const task = await member.json<TaskJson>(`/api/tasks/${id}?consistency=stale`);
    expect(task.status).toBe("Pending");
  }
}

async function aFollowerDown(): Promise<Member> {
  const [follower] = await cluster.followers();
  if (follower === undefined) throw new Error("no follower");
  await follower.kill("SIGKILL");
  await submit(3);
  return follower;
}

test("a flipped bit in an entry of the log: the member takes log and state anew from the others", async () => {
  const member = await aFollowerDown();
  tamper(
    member,
    "UPDATE entries SET data = CAST(replace(data, 'nobody', 'nobodx') AS BLOB) WHERE idx = 5",
  );
  member.output = "";
  await member.start();
  await isWhole(member);
  expect(member.output).toMatch(
    /log\.db: entry 5 has a wrong checksum: log and state are taken anew/,
  );
});

test("a flipped bit in the vote is mended from its copy", async () => {
  const member = await aFollowerDown();
  tamper(member, "UPDATE hard_state SET vote = 'n9'");
  await member.start();
  await isWhole(member);
});

test("a damaged state database is built anew", async () => {
  const member = await aFollowerDown();
  const name = readFileSync(join(folderOf(member), "CURRENT"), "utf8").trim();
  const path = join(folderOf(member), name);
  // What a killed process left in the WAL would cover the damage.
  const db = new Database(path);
  db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  db.close(true);
  const pages = statSync(path).size / 4_096;
  const file = openSync(path, "r+");
  for (let page = 1; page < pages; page += 2)
    writeSync(file, new Uint8Array(64).fill(0xa5), 0, 64, page * 4_096);
  closeSync(file);
  member.output = "";
  await member.start();
  await isWhole(member);
  expect(member.output).toContain(`${name} is damaged`);
  expect(member.output).toContain("the state is built anew from the log");
  expect(readFileSync(join(folderOf(member), "CURRENT"), "utf8").trim()).not.toBe(name);
});

test("members that were repaired carry the cluster by themselves", async () => {
  const leader = await cluster.leader();
  await leader.kill("SIGKILL");
  await submit(1);
  for (const member of cluster.members) if (member.process !== null) await isWhole(member);
  await leader.start();
});

test("a cluster of one stops, names the entry, and leaves everything as it is", async () => {
  const alone = await RealCluster.start({ size: 1, args: ["--concurrency", "0"] });
  const member = alone.member(0);
  for (let i = 0; i < 5; i++) await member.post("/api/tasks", { name: "nobody", payload: i });
  await member.kill("SIGKILL");
  const db = new Database(join(alone.folder, member.id, "log.db"), { strict: true });
  db.run("UPDATE entries SET term = term + 1 WHERE idx = 4");
  db.close(true);
  for (let start = 1; start <= 2; start++) {
    member.output = "";
    expect(await member.start().then(() => "started", String)).toContain("ended with 2");
    expect(member.output).toContain(
      "log.db: entry 4 has a wrong checksum. This cluster has one member, so nobody can send what is lost: go back to a backup",
    );
  }
  await alone.stop();
});
