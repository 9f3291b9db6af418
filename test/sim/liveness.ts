/** After the healing (L1–L5, L7): the core elects, stays, answers, converges, finishes every task, and is quiet. */
import { QueueError } from "../../src/queue/service.ts";
import type { NewTask } from "../../src/queue/types.ts";
import { DEFAULT_RETRY } from "../../src/queue/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import type { SimNode } from "./node.ts";
import { rotIsFound } from "./rot.ts";
import type { Simulation } from "./simulation.ts";
import { EPOCH } from "./world.ts";

/** Half-open connections are found by pings, and redialled: that comes before any election. */
const RECONNECT_MS: Millis = 6_000;
const SERVE_MS: Millis = 5_000;
/** The longest time-out of a task, its lease, its retries. */
const FINISH_MS: Millis = 180_000;
const CONVERGE_MS: Millis = 10_000;
/** A change of the membership that was asked for takes so long at most; and so long nothing more is changed. */
const SETTLE_MAX_MS: Millis = 20_000;
const UNCHANGED_MS: Millis = 600;
/** The last news of what was just done. */
const SETTLE_MS: Millis = 500;
/** Workers finish what they hold, and their long polls end. */
const CALM_MS: Millis = 120_000;
/** Most seeds watch an idle cluster for a short time, a few for a long one (K6). */
const QUIET_MS: readonly Millis[] = [1_500, 1_500, 1_500, 1_500, 1_500, 1_500, 1_500, 15_000];

export async function checkLiveness(sim: Simulation): Promise<void> {
  const fail = (rule: string, what: string): void => sim.fail(`liveness ${rule}`, what);
  const { electionTimeoutMs } = sim.options;
  const leads = (): boolean => {
    const leader = sim.leader();
    return leader !== null && sim.core().includes(leader);
  };
  if (!(await sim.until(RECONNECT_MS + 10 * electionTimeoutMs, leads))) {
    fail("L1", `no leader within ${RECONNECT_MS + 10 * electionTimeoutMs} ms: ${describe(sim)}`);
    return;
  }
  await settles(sim);
  const { families } = sim.options;
  if (families.has("row-rot") || families.has("odd-apply")) await rotIsFound(sim);
  if (sim.failure !== null) return;
  // What was handed over in the last moment ends, well or badly, before anybody is expected to stay.
  await sim.until(2 * electionTimeoutMs);
  if (!(await sim.until(RECONNECT_MS + 10 * electionTimeoutMs, () => isFollowed(sim)))) {
    fail("L1", `not everyone hears of the leader: ${describe(sim)}`);
    return;
  }
  const { leader, term } = standing(sim);
  if (leader !== null) handOverToTheDead(sim, leader);
  for (const node of sim.core()) {
    if (sim.failure !== null) return;
    await serves(sim, node);
  }
  const done = (): boolean =>
    sim.asking === 0 && sim.ledger.counts.Pending + sim.ledger.counts.Running === 0;
  if (!(await sim.until(FINISH_MS, done))) {
    const open = [...sim.ledger.tasks.values()]
      .filter(({ status }) => status === "Pending" || status === "Running")
      .slice(0, 5)
      .map(({ id }) => JSON.stringify(leader?.machine?.task(id)));
    fail("L5", `tasks are not final after ${FINISH_MS} ms: ${open.join("\n")}`);
    return;
  }
  sim.over = true;
  await sim.until(CALM_MS, () => sim.working === 0);
  await sim.until(SETTLE_MS);
  const same = (): boolean =>
    sim
      .core()
      .every(({ applied, store }) => applied === sim.appliedMax && (store?.pending ?? 0) === 0);
  if (!(await sim.until(CONVERGE_MS, same))) {
    fail("L3", `the core does not converge: ${describe(sim)}`);
    return;
  }
  // Where nobody can be judged, rot stays; the members tell of it.
  const sound = sim.core().filter((node) => !node.isWrong);
  const hashes = new Map(sound.map((node) => [node.id, node.machine?.hash()]));
  if (new Set(hashes.values()).size > 1)
    fail("L3", `equal indexes, unequal states: ${JSON.stringify([...hashes])}`);
  await unchanged(sim);
  await quiet(sim);
  const now = standing(sim);
  // Who was removed, or gave its place away, has handed over: its learner may have caught up late.
  if (leader === null || !sim.isMember(leader)) return;
  if (now.leader !== leader || now.term !== term)
    fail("L2", `${leader?.id} led in term ${term}, now ${now.leader?.id} in term ${now.term}`);
}

/** Whoever was to take over dies before it does: the leader goes on, and takes writes again (mutant 14). */
function handOverToTheDead(sim: Simulation, leader: SimNode): void {
  const dead = sim.members().filter((node) => !sim.core().includes(node));
  if (dead.length > 0) sim.transfer(leader, sim.world.prng.pick(dead).id);
}

/** What operators had begun ends, and so does what members do by themselves about it. */
async function settles(sim: Simulation): Promise<void> {
  await sim.until(SETTLE_MAX_MS, () => sim.operating === 0);
  await unchanged(sim);
}

async function unchanged(sim: Simulation): Promise<void> {
  let since = sim.world.now;
  let index = sim.membership?.index;
  await sim.until(SETTLE_MAX_MS, () => {
    const { now } = sim.world;
    const { membership } = sim;
    if (membership?.index !== index || (membership?.configuration.outgoing.length ?? 0) > 0) {
      index = membership?.index;
      since = now;
    }
    return now - since >= UNCHANGED_MS;
  });
}

/** Nobody in the core believes in anybody else, or in a later term. */
function isFollowed(sim: Simulation): boolean {
  const leader = sim.leader();
  if (leader === null) return false;
  return sim
    .core()
    .every(
      ({ leadership }) =>
        leadership?.leader === leader.id && leadership.term === leader.leadership?.term,
    );
}

function standing(sim: Simulation): { leader: SimNode | null; term: number | null } {
  const leader = sim.leader();
  return { leader, term: leader?.leadership?.term ?? null };
}

/** L4: a write through this member is acknowledged, and read back, within seconds. */
async function serves(sim: Simulation, node: SimNode): Promise<void> {
  let read = false;
  let task = probe(sim, node);
  let last = "nothing";
  void (async () => {
    while (!read && sim.failure === null && sim.core().includes(node)) {
      try {
        const since = sim.history.begin();
        const { ids } = await sim.call(node, (queue) =>
          queue.submit([task], { principal: "probe", idempotency: null }),
        );
        sim.history.submitted(ids, since, false);
        const before = sim.history.beginRead();
        const answer = await sim.call(node, (queue) => queue.get(task.id, "linearizable"));
        sim.history.read(task.id, answer.task, answer.read.appliedIndex, before);
        read = answer.task !== null;
        // A client has cleared it in between.
        if (!read) task = probe(sim, node);
      } catch (error) {
        last = String(error);
        await sim.sleep(50);
        // Cleared before it was read, or older than this member could know.
        const { reason = "" } = error instanceof QueueError ? error : {};
        if (reason === "id-conflict" || reason === "id-expired") task = probe(sim, node);
      }
    }
  })();
  const limitMs = SERVE_MS + sim.options.requestTimeoutMs;
  if (!(await sim.until(limitMs, () => read || !sim.core().includes(node))))
    sim.fail(
      "liveness L4",
      `${node.id} serves nothing within ${limitMs} ms: ${last}; ${describe(sim)}`,
    );
}

/** With an id of its own, as of log time, which may be hours ahead of the true one by right (`invariants/log-time.ts`). */
function probe(sim: Simulation, node: SimNode): NewTask {
  const { prng, now } = sim.world;
  const id = prng.uuid(Math.max(EPOCH + now, node.machine?.logTime() ?? 0));
  sim.history.asked.add(id);
  return {
    id,
    name: "stray",
    queue: "default",
    priority: 5,
    payload: null,
    max_retries: 3,
    run_at: null,
    timeout_ms: 60_000,
    retry: DEFAULT_RETRY,
    body_hash: prng.hex(8),
  };
}

/** L7: with nothing to do the log stays as it is, and members say no more than their heartbeats. */
async function quiet(sim: Simulation): Promise<void> {
  const { heartbeatMs, leaseMs } = sim.options;
  const index = sim.appliedMax;
  const { sent } = sim.network.counts;
  const quietMs = sim.world.prng.pick(QUIET_MS);
  await sim.until(quietMs);
  // Retention and kept claims go on their own clock.
  const grown = sim.appliedMax - index;
  if (grown > 2) sim.fail("liveness L7", `the idle log grew by ${grown} entries`);
  const n = sim.core().length;
  const beats = (1_000 / heartbeatMs) * 2 * (sim.nodes.length - 1);
  const words = 30 * n + 4 * n * n;
  const pools = n * (3_000 / leaseMs) * (2 + 2 * n);
  const most = 1.5 * (beats + words + pools) * (quietMs / 1_000);
  if (sim.network.counts.sent - sent > most)
    sim.fail(
      "liveness L7",
      `idle members sent ${sim.network.counts.sent - sent} frames, at most ${most} are due`,
    );
}

function describe(sim: Simulation): string {
  return sim
    .core()
    .map(({ id, up, applied, leadership, replica }) => {
      const status = replica?.status();
      return `${id} ${up ? "up" : "down"} ${leadership?.role ?? "?"} term ${leadership?.term ?? "?"} applied ${applied} commit ${status?.commit ?? "?"} last ${status?.lastIndex ?? "?"} ${status?.waiting ?? ""} ${replica?.clockAlarm() ?? ""}`;
    })
    .join("; ");
}
