/** What an operator sees moves when the thing happens: figures of real members, before and after. */
import { expect } from "bun:test";
import { type ClusterView, eventually, type Member, type RealCluster } from "./harness.ts";
import { scenario, withCluster } from "./scenario.ts";

/** Nobody runs it. */
const LATER = { name: "t", run_at: "2099-01-01T00:00:00Z" };
const CALLERS = 32;
const KIB = 1024;

/** `name{label="value"}` and its value, of one scrape. */
class Figures {
  readonly #values = new Map<string, number>();

  constructor(text: string) {
    for (const line of text.split("\n")) {
      const at = line.lastIndexOf(" ");
      if (!line.startsWith("#") && at > 0)
        this.#values.set(line.slice(0, at), Number(line.slice(at + 1)));
    }
  }

  /** @throws Error when it is not told */
  of(name: string): number {
    const value = this.#values.get(`flotilla_${name}`);
    if (value === undefined) throw new Error(`flotilla_${name} is not told`);
    return value;
  }
}

/** Now and then: a scrape is not free, and others' tests run beside this one. */
async function figures(member: Member): Promise<Figures> {
  await Bun.sleep(100);
  return new Figures(await (await member.fetch("/metrics")).text());
}

async function grows(before: Figures, member: Member, names: readonly string[]): Promise<void> {
  const still = new Set(names);
  await eventually(`${[...still].join(", ")} of ${member.id} to grow`, async () => {
    const now = await figures(member);
    for (const name of still) if (now.of(name) > before.of(name)) still.delete(name);
    return still.size === 0;
  }).catch((error: unknown) => {
    throw new Error(`does not grow at ${member.id}: ${[...still].join(", ")}`, { cause: error });
  });
}

function submitAtOnce(member: Member, count: number): Promise<unknown> {
  return Promise.all(Array.from({ length: count }, () => member.post("/api/tasks", LATER)));
}

/** Writes: the log, its fsyncs, entries and batches, what peers hold, what was forwarded, a parked claim. */
async function work(leader: Member, follower: Member): Promise<void> {
  const atLeader = await figures(leader);
  const atFollower = await figures(follower);
  await submitAtOnce(leader, CALLERS);
  await submitAtOnce(follower, CALLERS);
  await grows(atLeader, leader, [
    "raft_commit_index",
    "raft_applied_index",
    "raft_last_index",
    `raft_peer_match_index{peer="${follower.id}"}`,
    "log_fsync_seconds_count",
    "log_fsync_seconds_sum",
    "log_transaction_writes_count",
    "log_transactions_total",
    "log_writes_total",
    "log_written_bytes_total",
    "log_entries",
    "commit_seconds_count",
    "commit_seconds_sum",
    "entry_commands_count",
    "entries_sealed_total",
    "entries_applied_total",
    "commands_applied_total",
    "apply_seconds_total",
    "loop_delay_seconds_count",
    "state_durable_index",
    "consistency_index",
    'tasks{status="Pending"}',
  ]);
  await grows(atFollower, follower, [
    "raft_applied_index",
    "log_fsync_seconds_count",
    "commands_forwarded_total",
  ]);
  const now = await figures(leader);
  expect(now.of("commands_sealed_total")).toBe(now.of("entry_commands_sum"));
  // Callers at once share entries.
  expect(now.of("commands_sealed_total")).toBeGreaterThan(now.of("entries_sealed_total"));
  expect(now.of("raft_is_leader")).toBe(1);
  expect(now.of(`raft_peer_round_trip_seconds{peer="${follower.id}"}`)).toBeGreaterThan(0);
  expect(now.of("loop_busy_ratio")).toBeWithin(0, 1.000_001);

  const waiting = 'waiting{what="claims"}';
  expect((await figures(follower)).of(waiting)).toBe(0);
  const ended = new AbortController();
  const claim = { worker_id: "w", names: ["t"], max: 1, wait_ms: 60_000 };
  const parked = follower.fetch("/api/leases/claim", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(claim),
    signal: ended.signal,
  });
  await eventually("a claim that waits", async () => (await figures(follower)).of(waiting) === 1);
  ended.abort();
  await parked.catch(() => undefined);
  await eventually("none that waits", async () => (await figures(follower)).of(waiting) === 0);
}

/** A member that is gone, and comes back behind the leader's log. */
async function lag(leader: Member, gone: Member): Promise<void> {
  const peer = `{peer="${gone.id}"}`;
  expect((await figures(leader)).of(`raft_peer_connected${peer}`)).toBe(1);
  await gone.kill();
  const before = await figures(leader);
  await submitAtOnce(leader, CALLERS);
  await grows(before, leader, [
    `raft_peer_lag_entries${peer}`,
    `raft_peer_last_contact_seconds${peer}`,
  ]);
  const now = await figures(leader);
  expect(now.of(`raft_peer_connected${peer}`)).toBe(0);
  const view = await leader.json<ClusterView>("/api/cluster");
  const seen = view.members.find(({ id }) => id === gone.id);
  expect(seen?.reachable).toBe(false);
  expect(seen?.lag).toBeGreaterThan(0);

  // The least of a tail: the member needs a snapshot.
  await leader.json("/api/cluster/config", {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ log_tail: { max_bytes: KIB * KIB, young_bytes: 0 } }),
  });
  const payload = "x".repeat(200 * KIB);
  await eventually("the log to be compacted beyond what the member has", async () => {
    await leader.post("/api/tasks", { ...LATER, payload });
    // What comes in within a second is one step of the log's marks.
    await Bun.sleep(100);
    const figure = await figures(leader);
    const compacted = figure.of("raft_last_index") - figure.of("log_entries");
    return compacted > figure.of(`raft_peer_match_index${peer}`);
  });
  const sent = await figures(leader);
  await gone.start();
  await grows(sent, leader, ["snapshot_sent_bytes_total"]);
  await eventually("a snapshot to be installed", async () => {
    return (await figures(gone)).of("snapshots_installed_total") === 1;
  });
  await eventually("it to have caught up", async () => {
    return (await figures(leader)).of(`raft_peer_lag_entries${peer}`) === 0;
  });
}

/** A leader that hands over, and one that dies. */
async function elections(cluster: RealCluster): Promise<void> {
  const [first] = await cluster.followers();
  const leader = await cluster.leader();
  if (first === undefined) throw new Error("no follower");
  const atFirst = await figures(first);
  const others = await Promise.all(cluster.members.map(figures));
  await leader.post("/api/cluster/transfer", { to: first.id });
  await grows(atFirst, first, [
    'raft_elections_total{reason="transfer"}',
    "raft_leader_changes_total",
    "raft_term",
    "raft_is_leader",
  ]);
  await first.kill();
  const next = await cluster.leader();
  const before = others[cluster.members.indexOf(next)];
  const now = await figures(next);
  const stood = (from: Figures | undefined): number =>
    (from?.of('raft_elections_total{reason="leader-lost"}') ?? 0) +
    (from?.of('raft_elections_total{reason="timeout"}') ?? 0);
  expect(stood(now)).toBeGreaterThan(stood(before));
  expect(now.of('raft_role{role="leader"}')).toBe(1);
}

scenario("figures move when the thing happens that they tell of", () =>
  // The figures are a leader's: on a busy machine nobody else must take it for lost meanwhile.
  withCluster({ args: ["--concurrency", "0", "--election-timeout", "3s"] }, async (cluster) => {
    const leader = await cluster.leader();
    const [follower, other] = await cluster.followers();
    if (follower === undefined || other === undefined) throw new Error("no two followers");
    await work(leader, follower);
    await lag(leader, other);
    await elections(cluster);
  }),
);
