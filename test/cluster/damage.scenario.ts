/** Bits that flip in the files of real members, while they are down (docs/storage.md). */
import { Database } from "bun:sqlite";
import { expect } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import {
  type ClusterView,
  eventually,
  type Member,
  type RealCluster,
  type TaskJson,
} from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

/** Three members, and the tasks that they took. */
class Damaged {
  readonly ids: string[] = [];

  constructor(readonly cluster: RealCluster) {}

  async submit(count: number): Promise<void> {
    const leader = await this.cluster.leader();
    for (let i = 0; i < count; i++) {
      const task = await leader.post<TaskJson>("/api/tasks", { name: "nobody", payload: { i } });
      this.ids.push(task.id);
    }
  }

  folderOf(member: Member): string {
    return join(this.cluster.folder, member.id);
  }

  /** The member answers by itself, and holds every task. */
  async isWhole(member: Member): Promise<void> {
    const leader = await this.cluster.leader();
    await eventually(`${member.id} to catch up`, async () => {
      const [own, theirs] = await Promise.all(
        [member, leader].map((each) => each.json<ClusterView>("/api/cluster?consistency=stale")),
      );
      return own !== undefined && own.applied_index >= (theirs?.commit_index ?? Infinity);
    });
    for (const id of this.ids) {
      const task = await member.json<TaskJson>(`/api/tasks/${id}?consistency=stale`);
      expect(task.status).toBe("Pending");
    }
  }

  /** Killed when its state on the disk holds what was submitted so far; then some more is submitted. */
  async aFollowerDown(): Promise<Member> {
    const [follower] = await this.cluster.followers();
    if (follower === undefined) throw new Error("no follower");
    const { commit_index } = await (await this.cluster.leader()).json<ClusterView>("/api/cluster");
    await eventually("its rows to be written", async () => {
      const name = readFileSync(join(this.folderOf(follower), "CURRENT"), "utf8").trim();
      const db = new Database(join(this.folderOf(follower), name), { readonly: true });
      const row = db.query<{ applied_index: number }, []>("SELECT applied_index FROM state").get();
      db.close(true);
      return (row?.applied_index ?? 0) >= commit_index;
    });
    await follower.kill("SIGKILL");
    await this.submit(3);
    return follower;
  }
}

/** Changes one row of the log of a member that is down, behind its back. */
function tamper(folder: string, sql: string, ...bindings: (Uint8Array | number)[]): void {
  const db = new Database(join(folder, "log.db"), { strict: true });
  expect(db.run(sql, bindings).changes).toBe(1);
  db.close(true);
}

/** Flips one bit in the first entry that holds the text. @returns its index: what was batched with what decides it */
function flipBit(folder: string, text: string): number {
  const db = new Database(join(folder, "log.db"), { strict: true, readonly: true });
  const entries = db
    .query<{ idx: number; data: Uint8Array }, []>("SELECT idx, data FROM entries ORDER BY idx")
    .all();
  db.close(true);
  for (const { idx, data } of entries) {
    const at = Buffer.from(data).indexOf(text);
    if (at < 0) continue;
    const flipped = Uint8Array.from(data, (byte, i) => (i === at ? byte ^ 1 : byte));
    tamper(folder, "UPDATE entries SET data = ? WHERE idx = ?", flipped, idx);
    return idx;
  }
  throw new Error(`none of ${entries.length} entries holds ${text}`);
}

scenario(
  "bits flip in entries, in the vote and in the state of three members: each is repaired, and carries the cluster",
  () =>
    withCluster({ args: ["--concurrency", "0"] }, async (cluster) => {
      const at = new Damaged(cluster);
      await at.submit(20);
      await anEntry(at);
      await theVote(at);
      await theState(at);
      await repairedMembersCarryOn(at);
    }),
);

/** A flipped bit in an entry of the log: the member takes log and state anew from the others. */
async function anEntry(at: Damaged): Promise<void> {
  const member = await at.aFollowerDown();
  const damaged = flipBit(at.folderOf(member), "nobody");
  member.output = "";
  await member.start();
  await at.isWhole(member);
  expect(member.output).toContain(
    `log.db: entry ${damaged} has a wrong checksum: log and state are taken anew`,
  );
}

/** A flipped bit in the vote is mended from its copy. */
async function theVote(at: Damaged): Promise<void> {
  const member = await at.aFollowerDown();
  tamper(at.folderOf(member), "UPDATE hard_state SET vote = 'n9'");
  await member.start();
  await at.isWhole(member);
}

/** A damaged state database is built anew. */
async function theState(at: Damaged): Promise<void> {
  const member = await at.aFollowerDown();
  const name = readFileSync(join(at.folderOf(member), "CURRENT"), "utf8").trim();
  const path = join(at.folderOf(member), name);
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
  await at.isWhole(member);
  expect(member.output).toContain(`${name} is damaged`);
  expect(member.output).toContain("the state is built anew from the log");
  expect(readFileSync(join(at.folderOf(member), "CURRENT"), "utf8").trim()).not.toBe(name);
}

/** Members that were repaired carry the cluster by themselves. */
async function repairedMembersCarryOn(at: Damaged): Promise<void> {
  const leader = await at.cluster.leader();
  await leader.kill("SIGKILL");
  await at.submit(1);
  for (const member of at.cluster.members) if (member.process !== null) await at.isWhole(member);
  await leader.start();
}

scenario(
  "with a flipped bit in its log a cluster of one stops, names the entry, and leaves everything as it is",
  () =>
    withCluster({ size: 1, args: ["--concurrency", "0"] }, async (alone) => {
      const member = alone.member(0);
      for (let i = 0; i < 5; i++) await member.post("/api/tasks", { name: "nobody", payload: i });
      await member.kill("SIGKILL");
      const damaged = flipBit(join(alone.folder, member.id), "nobody");
      for (let start = 1; start <= 2; start++) {
        member.output = "";
        expect(await member.start().then(() => "started", String)).toContain("ended with 2");
        expect(member.output).toContain(
          `log.db: entry ${damaged} has a wrong checksum. This cluster has one member, so nobody can send what is lost: go back to a backup`,
        );
      }
    }),
);
