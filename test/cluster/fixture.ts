/**
 * Data folders of a cluster that an earlier build wrote, and that build: where they lie, and how a test gets a copy.
 * `record-fixture.ts` makes them.
 */
import { existsSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { ROOT, type TaskJson } from "./harness.ts";

export const FIXTURE = join(import.meta.dir, "fixtures", "cluster");
/** Folders n1, n2, n3, and `tasks.json`: every task as the API told it, oldest first. */
export const ARCHIVE = "folders.tar.zst";
export const ABOUT = "about.json";

export interface FixtureAbout {
  /** Of the build that wrote it. */
  readonly commit: string;
  readonly recordedAt: string;
  readonly clusterId: string;
  /** In force when it was recorded. */
  readonly machineVersion: number;
  readonly term: number;
  readonly applied: number;
}

/** Null: none was recorded. */
export async function fixtureAbout(): Promise<FixtureAbout | null> {
  const file = Bun.file(join(FIXTURE, ABOUT));
  return (await file.exists()) ? ((await file.json()) as FixtureAbout) : null;
}

/** Unpacks the folders into `target`; answers every task that they hold. */
export async function unpackFixture(target: string): Promise<readonly TaskJson[]> {
  const packed = await Bun.file(join(FIXTURE, ARCHIVE)).bytes();
  await new Bun.Archive(Bun.zstdDecompressSync(packed)).extract(target);
  return (await Bun.file(join(target, "tasks.json")).json()) as TaskJson[];
}

/** What of `task` an upgrade must have kept; what has not ended may have gone on since. */
export function keptOf(task: TaskJson): Partial<TaskJson> {
  if (["Completed", "Failed", "Cancelled"].includes(task.status)) return task;
  const { id, name, payload, retries } = task;
  return { id, name, payload, retries };
}

/** A shallow clone, say, does not have it. */
export async function gitHas(commit: string): Promise<boolean> {
  const child = Bun.spawn(["git", "cat-file", "-e", `${commit}^{commit}`], {
    cwd: ROOT,
    stdout: "ignore",
    stderr: "ignore",
  });
  return (await child.exited) === 0;
}

/** Writes that commit's files into `target`, a new folder, with packages to run them. @throws Error git has it not */
export async function checkOut(commit: string, target: string): Promise<void> {
  mkdirSync(target, { recursive: true });
  const archive = Bun.spawn(["git", "archive", "--format=tar", commit], { cwd: ROOT });
  const bytes = await new Response(archive.stdout).bytes();
  if ((await archive.exited) !== 0) throw new Error(`git has no commit ${commit}`);
  await new Bun.Archive(bytes).extract(target);
  const lock = (root: string): Promise<string> => Bun.file(join(root, "bun.lock")).text();
  if (existsSync(join(ROOT, "node_modules")) && (await lock(target)) === (await lock(ROOT))) {
    symlinkSync(join(ROOT, "node_modules"), join(target, "node_modules"));
    return;
  }
  const install = Bun.spawn(["bun", "install", "--frozen-lockfile"], { cwd: target });
  if ((await install.exited) !== 0) throw new Error(`its packages cannot be installed: ${commit}`);
}
