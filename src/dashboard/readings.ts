/**
 * What the pages show, read from this member's own applied state: a follower's page is live, and looking
 * never costs the leader anything but the list of workers, which only it keeps.
 */
import { STATUSES } from "../queue/types.ts";
import type { ClusterView, LogLine, Status } from "../queue/types.ts";
import type { Health, TaskFilter, TaskQueue, WorkerView } from "../queue/service.ts";
import type { Clock } from "../replica/ports.ts";
import type { Allowed } from "../../views/elements.tsx";
import type { OverviewProps } from "../../views/overview.tsx";
import type { TaskListAddress, TaskListProps } from "../../views/tasks.tsx";
import type { TaskPageProps } from "../../views/task.tsx";
import { openCursor, sealCursor } from "./cursor.ts";
import { SharedReading } from "./shared-reading.ts";

const OVERVIEW_TASKS = 15;
const PAGE_TASKS = 50;
/** Older state than this is said to be old. */
const STALE_WARNING_MS = 3_000;
const SLOW_FRESH_MS = 1_000;
const SLOW_LIMIT_MS = 1_500;
/** Log lines shown, and read at most, per look at a task. */
const LOG_SHOWN = 200;
const LOG_PAGE = 1_000;
const LOG_PAGES = 5;

export class Readings {
  readonly #queue: TaskQueue;
  readonly #clock: Clock;
  readonly #cluster: SharedReading<ClusterView>;
  readonly #workers: SharedReading<readonly WorkerView[]>;

  constructor(queue: TaskQueue, clock: Clock) {
    this.#queue = queue;
    this.#clock = clock;
    this.#cluster = new SharedReading(clock, () => queue.cluster(), SLOW_FRESH_MS, SLOW_LIMIT_MS);
    this.#workers = new SharedReading(clock, () => queue.workers(), SLOW_FRESH_MS, SLOW_LIMIT_MS);
  }

  async overview(allowed: Allowed): Promise<OverviewProps> {
    const [counted, listed, cluster, workers] = await Promise.all([
      this.#queue.stats("stale"),
      this.#queue.list({}, OVERVIEW_TASKS, null, "stale"),
      this.#cluster.get(),
      this.#workers.get(),
    ]);
    return {
      warning: this.#warning(counted.read.stalenessMs, cluster),
      stats: counted.stats,
      throughput: this.#queue.throughput(),
      cluster,
      workers,
      newest: listed.page.tasks,
      now: this.#clock.wall(),
      allowed,
    };
  }

  async taskList(address: TaskListAddress, allowed: Allowed): Promise<TaskListProps> {
    const [counted, listed, cluster] = await Promise.all([
      this.#queue.stats("stale"),
      this.#queue.list(
        filterOf(address),
        PAGE_TASKS,
        address.cursor === "" ? null : openCursor(address.cursor, scopeOf(address)),
        "stale",
      ),
      this.#cluster.get(),
    ]);
    return {
      warning: this.#warning(listed.read.stalenessMs, cluster),
      address,
      stats: counted.stats,
      tasks: listed.page.tasks,
      next: listed.page.next === null ? null : sealCursor(listed.page.next, scopeOf(address)),
      now: this.#clock.wall(),
      allowed,
    };
  }

  /** Null: no such task here. */
  async task(id: string, allowed: Allowed): Promise<TaskPageProps | null> {
    const { task, read } = await this.#queue.get(id, "stale");
    if (task === null) return null;
    const [attempts, logs, cluster] = await Promise.all([
      this.#queue.attempts(id, "stale"),
      this.#logTail(id),
      this.#cluster.get(),
    ]);
    return {
      warning: this.#warning(read.stalenessMs, cluster),
      task,
      attempts: attempts.attempts ?? [],
      ...logs,
      now: this.#clock.wall(),
      allowed,
    };
  }

  /** What needs attention, a line each: alarms, and why this member's state may be old. Null: nothing does. */
  #warning(stalenessMs: number, cluster: ClusterView | null): string | null {
    const health = this.#queue.health();
    const told = this.#condition(health, stalenessMs, cluster);
    // What the condition says already is not said twice.
    const alarms = health.alarms
      .map(({ sentence }) => sentence)
      .filter((sentence) => told?.includes(sentence) !== true);
    const lines = [...(told === null ? [] : [told]), ...alarms];
    return lines.length === 0 ? null : lines.join("\n");
  }

  #condition(health: Health, stalenessMs: number, cluster: ClusterView | null): string | null {
    const old =
      Number.isFinite(stalenessMs) && stalenessMs > STALE_WARNING_MS
        ? `What you see is ${Math.round(stalenessMs / 1_000)} s old.`
        : Number.isFinite(stalenessMs)
          ? ""
          : "What you see may be old.";
    if (health.status === "unhealthy") {
      return `This member is unhealthy: ${health.reason}. ${old}`.trim();
    }
    if (cluster !== null && cluster.leader_id === null) {
      return `There is no leader: nothing can be submitted or changed until one is elected. ${old}`.trim();
    }
    return old === "" ? null : old;
  }

  async #logTail(id: string): Promise<Pick<TaskPageProps, "logs" | "logsSkipped" | "logsMore">> {
    let lines: LogLine[] = [];
    let count = 0;
    let cursor: string | null = null;
    for (let page = 0; page < LOG_PAGES; page += 1) {
      const read: Awaited<ReturnType<TaskQueue["logs"]>> = await this.#queue.logs(
        id,
        cursor,
        LOG_PAGE,
        "stale",
      );
      const found = read.lines ?? [];
      count += found.length;
      lines = [...lines, ...found].slice(-LOG_SHOWN);
      cursor = read.next;
      if (cursor === null || found.length === 0) break;
    }
    return { logs: lines, logsSkipped: count - lines.length, logsMore: cursor !== null };
  }
}

/** The address as the queue takes it; what is empty there is not filtered by. */
function filterOf(address: TaskListAddress): TaskFilter {
  return {
    ...(address.statuses.length > 0 ? { statuses: address.statuses } : {}),
    ...(address.queue === "" ? {} : { queue: address.queue }),
    ...(address.name === "" ? {} : { name: address.name }),
    ...(address.q === "" ? {} : { q: address.q }),
  };
}

/** The longest filter text that can match anything. */
const FILTER_TEXT_MAX = 255;
const CURSOR_MAX = 512;

function scopeOf(address: TaskListAddress): readonly unknown[] {
  return [address.statuses, address.queue, address.name, address.q];
}

/** Reads the filter from an address; a sentence names what is wrong with it. */
export function parseTaskListAddress(query: URLSearchParams): TaskListAddress | string {
  const statuses: Status[] = [];
  for (const text of query.getAll("status").flatMap((value) => value.split(","))) {
    if (text === "") continue;
    const status = STATUSES.find((known) => known === text);
    if (status === undefined) {
      return `There is no status “${text.slice(0, 60)}”. It is one of ${STATUSES.join(", ")}.`;
    }
    if (!statuses.includes(status)) statuses.push(status);
  }
  const field = (name: string): string => (query.get(name) ?? "").trim();
  const address = {
    statuses,
    queue: field("queue"),
    name: field("name"),
    q: field("q"),
    cursor: query.get("cursor") ?? "",
  };
  for (const name of ["queue", "name", "q"] as const) {
    if (address[name].length > FILTER_TEXT_MAX) {
      return `The filter ${name} is longer than ${FILTER_TEXT_MAX} characters.`;
    }
  }
  const { cursor } = address;
  const known = cursor.length <= CURSOR_MAX && openCursor(cursor, scopeOf(address)) !== null;
  if (cursor !== "" && !known) {
    return "This is not an address of a page of this list. Start again from its first page.";
  }
  return address;
}
