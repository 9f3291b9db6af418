/**
 * A row of a member's state that rots: a bit of a payload is another on its disk, and nobody notices but the members, which
 * compare their rows (T9). The member in the minority must find out, say nothing more, and take the state of the
 * others; where no majority is left to judge by, an alarm must stand.
 *
 * A payload decides nothing, so the member's answers stay right meanwhile. Where a snapshot of it carries the rot on, and
 * where a row that is written anew heals it, is looked up in the tables, not guessed.
 */
import type { Database } from "bun:sqlite";
import type { Millis } from "../../src/replica/ports.ts";
import { votes } from "./membership.ts";
import type { SimNode } from "./node.ts";
import type { Simulation } from "./simulation.ts";
import type { Prng } from "./world.ts";

/**
 * A pass of the audit, a snapshot, and a few tries. Who is found wrong a second and a third time, since it was given a wrong
 * state before that was found, waits a minute and then two (`repair-pace.ts`).
 */
const FOUND_MS: Millis = 200_000;
/** And a pass takes five seconds for each slice while nothing happens. */
const FOUND_IN_SLICES_MS: Millis = 600_000;
const LOOK_MS: Millis = 250;

/** Clients submit `{"n":…}`; n and f differ in one bit. */
export function isRotten(db: Database | null): boolean {
  if (db === null) return false;
  // What was answered under a key holds tasks, too: as JSON inside of JSON.
  const sql = `SELECT 1 FROM idempotency WHERE instr(answer, 'f\\":') > 0 LIMIT 1`;
  return hasRottenTask(db) || db.query<unknown, []>(sql).get() !== null;
}

/** What members compare: what was answered under a key bears texts for people, and is not among it (docs/consistency.md). */
function hasRottenTask(db: Database | null): boolean {
  if (db === null) return false;
  const sql = `SELECT 1 FROM tasks WHERE payload LIKE '{"f":%' LIMIT 1`;
  return db.query<unknown, []>(sql).get() !== null;
}

/** Once in a run, at one member of three or more. False: there is nobody, or no row, to strike. */
export function rotRow(sim: Simulation, prng: Prng): boolean {
  const { membership, nodes } = sim;
  if (membership === null || nodes.some((node) => node.wasRotten)) return false;
  const { configuration } = membership;
  if (configuration.voters.length < 3 || configuration.outgoing.length > 0) return false;
  const able = nodes.filter(
    ({ up, id, db, disk, machine }) =>
      up && votes(configuration, id) && db !== null && machine !== null && disk.installing === null,
  );
  if (able.length === 0) return false;
  const node = prng.pick(able);
  const { db, machine } = node;
  if (db === null || machine === null) return false;
  machine.flush();
  const rows = db
    .query<{ seq: number; id: string }, []>(
      "SELECT seq, id FROM tasks WHERE payload IS NOT NULL AND large = 0 ORDER BY seq DESC LIMIT 20",
    )
    .all();
  if (rows.length === 0) return false;
  const { seq, id } = prng.pick(rows);
  db.query("UPDATE tasks SET payload = replace(payload, 'n', 'f') WHERE seq = ?").run(seq);
  sim.trace.say(node.id, `the row of ${id} rots`);
  node.wasRotten = true;
  node.isSuspect = true;
  return true;
}

/**
 * After the healing: the rot, or what was applied differently, is found and gone, as far as enough voters are left to judge
 * by; else somebody tells of it.
 */
export async function rotIsFound(sim: Simulation): Promise<void> {
  const isCondemned = ({ replica }: SimNode): boolean => (replica?.condemned() ?? null) !== null;
  const rotten = (): readonly SimNode[] =>
    sim.core().filter(({ db, isOdd }) => isOdd || hasRottenTask(db));
  const isMajority = (some: readonly SimNode[]): boolean => {
    const voters = sim.membership?.configuration.voters ?? [];
    return 2 * some.filter(({ id }) => voters.includes(id)).length > voters.length;
  };
  const isTold = (): boolean =>
    sim
      .core()
      .some(({ replica }) => replica?.status().alarms.some(({ kind }) => kind === "inconsistent"));
  const isOver = (): boolean => {
    const core = sim.core();
    // Who was judged takes the state of the leader, however few of those that judged it are left; its tries are ten seconds
    // apart, since a snapshot is work, and until then it rightly answers nothing: what comes next asks it for answers.
    if (core.some(isCondemned)) return false;
    const wrong = rotten();
    if (wrong.length === 0) return true;
    // A snapshot carried it on before it was found: then all agree on what is wrong, and nobody can know better.
    if (isMajority(wrong)) return wrong.length === core.length;
    if (isMajority(core.filter((node) => !wrong.includes(node)))) return false;
    return isTold() || core.length < 2;
  };
  // Looking costs a query at each member.
  const withinMs = sim.options.families.has("short-audits") ? FOUND_IN_SLICES_MS : FOUND_MS;
  for (let ms = 0; ms < withinMs && sim.failure === null; ms += LOOK_MS) {
    if (isOver()) return;
    await sim.until(LOOK_MS);
  }
  if (sim.failure !== null) return;
  const found = rotten().map(({ id, replica }) => `${id}: ${replica?.condemned() ?? "no word"}`);
  sim.fail("T9", `what is wrong with a state is neither mended nor told of: ${found.join("; ")}`);
}
