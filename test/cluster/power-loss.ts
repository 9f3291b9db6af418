/**
 * `bun run test/cluster/power-loss.ts [--trials 50] [--seconds 2] [--seed N]`: three real members on real files
 * under load lose power all at once, again and again. A tracer sees from outside what each process had synced;
 * what it had not is taken out of the files, in part or as a whole. Then they start again, and every answer
 * that was ever given must still hold. Exits 1 when one does not. Needs Linux and strace.
 */
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { eventually, type Member, RealCluster, type TaskJson } from "./harness.ts";
import { losePower, traceWords, WriteJournal } from "./write-journal.ts";

export interface PowerLossOptions {
  readonly trials: number;
  readonly seconds: number;
  readonly seed: number;
  readonly report?: (line: string) => void;
}

export interface PowerLossResult {
  readonly trials: number;
  readonly acknowledged: number;
  readonly completed: number;
  /** Bytes taken out of the files, and syncs seen, of all members and trials. */
  readonly bytesTaken: number;
  readonly syncs: number;
  readonly broken: readonly string[];
}

const CALLERS = 8;

/** Runs the trials on one cluster whose folders go on from trial to trial. */
export async function losePowerAgainAndAgain(options: PowerLossOptions): Promise<PowerLossResult> {
  const { trials, seconds, report = () => undefined } = options;
  let state = options.seed;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  const cluster = await RealCluster.create({ args: ["--concurrency", "2"] });
  const folderOf = (member: Member): string => join(cluster.folder, member.id);
  /** Of the processes since the newest loss of power, oldest first. */
  const traces = new Map<Member, string[]>();
  const acknowledged = new Set<string>();
  const completed = new Set<string>();
  const broken: string[] = [];
  let bytesTaken = 0;
  let syncs = 0;
  let greatestFence = 0;

  let started = 0;
  async function startOne(member: Member): Promise<void> {
    const trace = join(cluster.folder, `${member.id}.${++started}.trace`);
    traces.set(member, [...(traces.get(member) ?? []), trace]);
    member.wrapper = traceWords(trace);
    await member.start();
  }

  async function start(): Promise<void> {
    for (const old of [...traces.values()].flat()) await rm(old, { force: true });
    traces.clear();
    await Promise.all(cluster.members.map(startOne));
    await cluster.leader(60_000);
  }

  /** Submits and reads until the power goes; only what was answered counts. */
  async function caller(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const member = cluster.member(Math.floor(random() * 3));
      const id = Bun.randomUUIDv7();
      try {
        const name = random() < 0.5 ? "echo" : "nobody-claims-this";
        await member.post("/api/tasks", { id, name, payload: id });
        acknowledged.add(id);
        const task = await member.json<TaskJson>(`/api/tasks/${id}`);
        if (task.status === "Completed") completed.add(id);
        greatestFence = Math.max(greatestFence, task.lease?.fence ?? 0);
      } catch {
        // Nothing was promised.
      }
    }
  }

  async function check(trial: number): Promise<void> {
    const reader = await cluster.leader(60_000);
    const seen = new Map<string, TaskJson>();
    let path: string | null = "/api/tasks?limit=1000";
    while (path !== null) {
      const response = await reader.fetch(path);
      if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
      for (const task of (await response.json()) as TaskJson[]) {
        if (seen.has(task.id)) broken.push(`trial ${trial}: ${task.id} is listed twice`);
        seen.set(task.id, task);
      }
      const next = /<([^>]+)>; *rel="next"/.exec(response.headers.get("link") ?? "")?.[1];
      path =
        next === undefined
          ? null
          : new URL(next, reader.url).pathname + new URL(next, reader.url).search;
    }
    for (const id of acknowledged)
      if (!seen.has(id)) broken.push(`trial ${trial}: ${id} was acknowledged and is gone`);
    for (const id of completed)
      if (seen.get(id)?.status !== "Completed")
        broken.push(`trial ${trial}: ${id} was Completed and is ${seen.get(id)?.status ?? "gone"}`);
    const { tasks } = await reader.post<{ tasks: TaskJson[] }>("/api/leases/claim", {
      worker_id: `probe-${trial}`,
      names: ["nobody-claims-this"],
      max: 1,
      wait_ms: 1_000,
    });
    for (const { id, lease } of tasks) {
      const fence = lease?.fence ?? 0;
      if (fence <= greatestFence)
        broken.push(`trial ${trial}: fence ${fence} was given after ${greatestFence}`);
      greatestFence = Math.max(greatestFence, fence);
      await reader.post(`/api/leases/${id}/release`, {
        worker_id: `probe-${trial}`,
        attempt: lease?.attempt,
        fence,
      });
    }
  }

  try {
    await start();
    for (let trial = 1; trial <= trials; trial++) {
      const stop = new AbortController();
      const callers = Array.from({ length: CALLERS }, () => caller(stop.signal));
      await Bun.sleep(seconds * 1_000 * (0.5 + random()));
      if (trial % 2 === 1) {
        // A kill takes nothing: the page cache shows the next process what was never synced.
        const victim = cluster.member(Math.floor(random() * 3));
        await victim.kill("SIGKILL");
        await startOne(victim);
        await Bun.sleep(seconds * 1_000 * random());
      }
      await Promise.all(cluster.members.map((member) => member.kill("SIGKILL")));
      stop.abort();
      await Promise.all(callers);
      // Nothing at all is kept in every third trial; else each write has its own fate.
      const nothing = trial % 3 === 0;
      let taken = 0;
      for (const member of cluster.members) {
        const journal = await eventually("the trace to end", async () => {
          const texts = (traces.get(member) ?? []).map((path) => Bun.file(path).text());
          const found = WriteJournal.of(...(await Promise.all(texts)));
          return found.ended ? found : null;
        });
        syncs += journal.syncs;
        taken += await losePower(journal, folderOf(member), () => (nothing ? 0 : random() * 1.5));
      }
      bytesTaken += taken;
      await start();
      await check(trial);
      const { size } = await stat(join(folderOf(cluster.member(0)), "log.db"));
      report(
        `trial ${trial}: ${taken} bytes taken, ${acknowledged.size} tasks acknowledged so far, ${broken.length} promises broken, log ${size} bytes`,
      );
    }
  } catch (error) {
    broken.push(`the cluster did not come back: ${String(error)}`);
  } finally {
    await cluster.stop();
  }
  return {
    trials,
    acknowledged: acknowledged.size,
    completed: completed.size,
    bytesTaken,
    syncs,
    broken,
  };
}

async function main(): Promise<never> {
  const { values } = parseArgs({
    options: {
      trials: { type: "string", default: "50" },
      seconds: { type: "string", default: "2" },
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
    },
  });
  console.log(`seed ${values.seed}`);
  const result = await losePowerAgainAndAgain({
    trials: Number(values.trials),
    seconds: Number(values.seconds),
    seed: Number(values.seed),
    report: (line) => console.log(line),
  });
  const { broken, ...figures } = result;
  console.table(figures);
  for (const what of broken.slice(0, 40)) console.log(`BROKEN: ${what}`);
  console.log(broken.length === 0 ? "Nothing was broken." : `${broken.length} promises broken.`);
  process.exit(broken.length === 0 ? 0 : 1);
}

// Not awaited here: tests import this file, and run in the order of their imports.
if (import.meta.main) void main();
