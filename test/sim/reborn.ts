/**
 * A cluster that begins out of another one's state: restored from a backup that an operator took in the middle of
 * everything, or rescued out of the folder of a survivor when a quorum is gone for good. The real code decides (which
 * survivor, whether the old cluster lives, what the new one begins with: `src/rescue`); here is the disk that it does so
 * on, and what must hold of the state. What comes then is a simulation of its own, with other faults.
 */
import type { Database } from "bun:sqlite";
import { TaskMachine } from "../../src/queue/machine.ts";
import { forgetBoots } from "../../src/queue/restored-state.ts";
import type { LeaseRef } from "../../src/queue/types.ts";
import { decodeConfigurationEntry } from "../../src/raft/configuration.ts";
import { asIndex, asNodeId, INDEX_0, TERM_0 } from "../../src/raft/types.ts";
import { aliveBecause, furthest, type Position } from "../../src/rescue/judgement.ts";
import { newBeginning, type OldLog } from "../../src/rescue/new-beginning.ts";
import type { Reborn, Stranger } from "./beginning.ts";
import { openState } from "./database.ts";
import type { Disk } from "./disk.ts";
import { isQuorum } from "./membership.ts";
import type { SimNode } from "./node.ts";
import { streamOf } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import { EPOCH, type Prng } from "./world.ts";
import { OUTSIDE } from "./workers.ts";

/** In place of a thousand million: a model's disk holds every index. More than any run writes. */
const JUMP = 5_000;

/** A backup as an operator has it: a state, and up to which index everything was seen to be acknowledged by then. */
export interface Backup {
  readonly state: Uint8Array;
  readonly since: number;
}

/** Copies the state through a member, as `GET /api/cluster/backup` does. Null: nobody could. */
export async function backUp(sim: Simulation, prng: Prng): Promise<Backup | null> {
  const node = prng.pick(sim.addressable());
  const since = sim.history.begin();
  try {
    const state = await sim.call(node, async (queue) => {
      await queue.stats("linearizable");
      return node.backUp();
    });
    if (state === null) return null;
    sim.trace.say(node.id, `is backed up, since ${since}`);
    return { state, since };
  } catch {
    return null;
  }
}

/** The first member of a new cluster on an empty folder. */
export function restored(sim: Simulation, { state, since }: Backup): Reborn {
  const incarnation = streamOf(sim.options.seed, "folder of a restore").hex(8);
  const db = openState(state);
  try {
    forgetBoots(db);
    const machine = TaskMachine.open(db);
    const { index } = machine.applied();
    if (index < since)
      sim.fail("restore", `a backup ends at ${index}, ${since} was seen before it was asked for`);
    checkKeys(sim, machine, index);
    const id = sim.nodes[0]?.id;
    if (id === undefined) throw new Error("there was no member");
    const log: OldLog = {
      identity: { id, incarnation },
      term: TERM_0,
      lastIndex: INDEX_0,
      read: () => [],
    };
    const before = { first: 1, incarnation, boot: 0 };
    return begin(sim, "restore", db, machine, log, before);
  } finally {
    db.close();
  }
}

/** Out of the survivor that is furthest. Null: nobody whose folder is sound is left, or too many are. */
export function rescued(sim: Simulation, prng: Prng): Reborn | null {
  const { membership } = sim;
  if (membership === null) return null;
  const { configuration } = membership;
  const survivors: SimNode[] = [];
  for (const node of sim.members().toSorted(() => prng.float() - 0.5)) {
    const sound = !node.ended && !node.rolledBack && node.owes === null && sim.isMember(node);
    if (!sound || node.disk.entries.length === 0 || node.db === null) continue;
    const ids = [...survivors, node].map(({ id }) => id);
    if (!isQuorum(configuration, (id) => ids.includes(id))) survivors.push(node);
  }
  for (const node of sim.nodes) node.kill("none");
  for (const { disk } of survivors) disk.settleInstall();
  const best = furthest(survivors, ({ disk }) => lastOf(disk));
  if (best === null || best.db === null) return null;
  judged(sim, best, survivors);
  sim.trace.say(best.id, `is all that goes on, of ${survivors.map(({ id }) => id).join(" ")}`);
  const { disk, number } = best;
  const db = openState(best.db.serialize());
  try {
    const machine = TaskMachine.open(db);
    const { incarnation, boot, compacted } = disk;
    const log: OldLog = {
      identity: { id: best.id, incarnation },
      term: disk.hardState.term,
      lastIndex: lastOf(disk).index,
      read: (from) =>
        from <= compacted.index ? [] : disk.entries.slice(from - 1, from - 1 + prng.between(1, 40)),
    };
    const before = { first: number, incarnation, boot };
    return begin(sim, "rescue", db, machine, log, before);
  } finally {
    db.close();
  }
}

function lastOf({ entries, compacted }: Disk): Position {
  const last = entries.at(-1);
  return last === undefined ? compacted : { index: last.index, term: last.term };
}

/** The cluster is given up when too few are left, and not while those that answer could decide something. */
function judged(sim: Simulation, best: SimNode, survivors: readonly SimNode[]): void {
  const newest = best.disk.entries.findLast(
    ({ kind }) => kind === "config" || kind === "bootstrap",
  );
  if (newest === undefined) return;
  const configuration = decodeConfigurationEntry(newest);
  const others = Object.entries(configuration.members).filter(([id]) => id !== best.id);
  const answering = (alive: (id: string) => boolean) =>
    others.map(([id, { url }]) => ({
      id: asNodeId(id),
      url,
      live: alive(id) ? { healthy: false } : null,
    }));
  if (
    aliveBecause(
      best.id,
      configuration,
      answering(() => true),
    ) === null
  )
    sim.fail("rescue", `${best.id} would be rescued out of a cluster of which everybody answers`);
  const left = new Set<string>(survivors.map(({ id }) => id));
  const possible = isQuorum(configuration, (id) => left.has(id));
  const why = aliveBecause(
    best.id,
    configuration,
    answering((id) => left.has(id)),
  );
  if (possible !== (why !== null))
    sim.fail("rescue", `${[...left].join(" ")} of ${JSON.stringify(configuration)}: ${why}`);
}

function begin(
  sim: Simulation,
  kind: Reborn["kind"],
  db: Database,
  machine: TaskMachine,
  log: OldLog,
  before: Pick<Reborn, "first" | "incarnation" | "boot">,
): Reborn {
  const { options, world } = sim;
  const old = machine.clusterId();
  const clusterId = streamOf(options.seed, `id of a ${kind}`).uuid(EPOCH + world.now);
  const now = EPOCH + Math.floor(world.now);
  const beginning = newBeginning(machine, log, {
    clusterId,
    advertise: `http://${log.identity.id}`,
    now,
    origin: { kind, clusterId: old ?? "", note: "simulated" },
    jump: JUMP,
  });
  const { index } = beginning.from;
  if (log.lastIndex > 0 && index !== log.lastIndex)
    sim.fail("rescue", `the log ends at ${log.lastIndex}, the new cluster begins behind ${index}`);
  if (machine.clusterId() !== clusterId || clusterId === old)
    sim.fail(kind, `the new cluster goes by ${machine.clusterId()}, the old one by ${old}`);
  checkTasks(sim, db, machine, sharedWith(sim, log), index);
  const stale = sim.ledger.grantedBehind(index);
  const stranger = strangerOf(sim, before.first);
  return { kind, of: sim, clusterId, ...before, beginning, state: db.serialize(), stale, stranger };
}

/** One that could do nothing by itself: it needs others of the cluster that is no more. */
function strangerOf(sim: Simulation, first: number): Stranger | null {
  const { nodes, membership, options } = sim;
  if ((membership?.configuration.voters.length ?? 0) < 3) return null;
  if (!streamOf(options.seed, "stranger").chance(0.6)) return null;
  const node = nodes.find(
    ({ number, disk, db, rolledBack, owes }) =>
      number !== first && disk.clusterId !== null && db !== null && !rolledBack && owes === null,
  );
  if (node?.db === null || node === undefined || node.disk.voteLost) return null;
  const { disk, number, db } = node;
  disk.settleInstall();
  return { number, disk, state: db.serialize() };
}

/** The new cluster lets nobody in who belongs to the old one, and changes nothing of what that one holds. */
export function strangerStays(sim: Simulation, { stranger }: Reborn): void {
  if (stranger === null) return;
  const { number, disk } = stranger;
  const node = sim.nodes.find((each) => each.number === number);
  const { members = {} } = sim.membership?.configuration ?? {};
  const isMember = Object.values(members).some(
    (member) => member.incarnation === disk.incarnation && member.url === `http://n${number}`,
  );
  // An operator may have emptied its folder since, and let it in as anybody.
  const isBound = node?.disk === disk && disk.clusterId === sim.reborn?.clusterId;
  if (isBound || isMember)
    sim.fail("rebirth", `n${number} of the cluster before is a member of the new one`);
}

/** Up to where the log that goes on holds what was committed. */
function sharedWith(sim: Simulation, { lastIndex, read }: OldLog): number {
  if (lastIndex === 0) return Number.POSITIVE_INFINITY;
  for (let i = Math.min(lastIndex, sim.appliedMax); i > 0; i--) {
    const [entry] = read(asIndex(i));
    // Compacted: only what was applied is.
    if (entry === undefined || entry.term === sim.committedTerms[i - 1]) return i;
  }
  return 0;
}

/**
 * Every task is there as it was by the log up to `shared`, and where the old log goes on behind that, nothing that nobody
 * asked for.
 */
function checkTasks(
  sim: Simulation,
  db: Database,
  machine: TaskMachine,
  shared: number,
  last: number,
): void {
  const { history, ledger } = sim;
  const until = Math.min(shared, last);
  for (const id of ledger.tasks.keys()) {
    const moment = ledger.at(id, until);
    const task = machine.task(id);
    if (task !== null && task.version > until) {
      if (last <= until) sim.fail("rebirth", `${id} has version ${task.version} of ${last}`);
      continue;
    }
    // Gone by what stands behind it.
    if (task === null && last > until) continue;
    if ((moment?.status ?? null) !== (task?.status ?? null))
      sim.fail(
        "rebirth",
        `${id} is ${task?.status ?? "gone"} in the new cluster, as of ${until} it was ${moment?.status ?? "gone"}`,
      );
  }
  for (const { id } of db.query<{ id: string }, []>("SELECT id FROM tasks").all())
    if (machine.task(id) !== null && !history.asked.has(id))
      sim.fail("rebirth", `${id} appeared and nobody asked for it`);
}

/** What was answered under an idempotency key before the backup is answered again. */
function checkKeys(sim: Simulation, machine: TaskMachine, index: number): void {
  for (const [key, { scope, at }] of sim.ledger.keys) {
    const answer = machine.keyedAnswer(scope);
    if (at <= index && answer?.ok !== true)
      sim.fail("restore", `the key ${key}, used at ${at}, is forgotten at ${index}`);
    if (at > index && answer !== null)
      sim.fail("restore", `the key ${key}, used at ${at}, is known at ${index}`);
  }
}

/** Workers of the old cluster go on: what they still hold they may end, what they were granted behind the state not. */
export async function oldWorkers(sim: Simulation, { stale, of }: Reborn): Promise<void> {
  const prng = streamOf(sim.options.seed, "old workers");
  const held = sim.ledger.heldAtFirst.filter(({ worker }) => worker.startsWith("w"));
  for (const { worker, ...ref } of prng.chance(0.5) ? held : []) {
    await sim.sleep(prng.float() * 300);
    const said = await end(sim, prng, worker, ref);
    if (said === "ok") sim.history.completed(ref);
  }
  for (const { worker, ...ref } of stale.slice(0, 6)) {
    const said = await end(sim, prng, worker, ref);
    if (said === "ok")
      sim.fail(
        "rebirth",
        `${worker} ended ${ref.task_id} under fence ${ref.fence} of the cluster before (${of.appliedMax})`,
      );
  }
}

async function end(sim: Simulation, prng: Prng, worker: string, ref: LeaseRef) {
  try {
    const item = { ...ref, end: { kind: "complete", result: "4" } } as const;
    const node = prng.pick(sim.addressable());
    const [said] = await sim.call(node, (queue) => queue.end(worker, OUTSIDE, [item], null));
    return said ?? null;
  } catch {
    return null;
  }
}
