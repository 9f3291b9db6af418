/** The first page: counts, throughput, members, workers, newest tasks. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import { STATUSES } from "../src/queue/types.ts";
import type { ClusterView, Task } from "../src/queue/types.ts";
import type { Stats, WorkerView } from "../src/queue/service.ts";
import { StatusSign, attributeText } from "./elements.tsx";
import type { Allowed } from "./elements.tsx";
import { formatAge, formatCount, formatDuration } from "./format.ts";
import { Banner, Page } from "./layout.tsx";
import type { Frame } from "./layout.tsx";
import { TaskTable } from "./task-table.tsx";
import { Throughput } from "./throughput.tsx";
import type { ThroughputSecond } from "./throughput.tsx";

export interface OverviewProps {
  readonly warning: string | null;
  readonly stats: Stats;
  readonly throughput: readonly ThroughputSecond[];
  /** Null: not known, with the reason. */
  readonly cluster: ClusterView | null;
  readonly workers: readonly WorkerView[] | null;
  readonly newest: readonly Task[];
  readonly now: number;
  readonly allowed: Allowed;
}

function Counts(props: { stats: Stats }): JSX.Element {
  return (
    <section id="counts" aria-label="Tasks by status">
      <ul class="tiles">
        {STATUSES.map((status) => (
          <li>
            <a class={`tile status-${status.toLowerCase()}`} href={`/tasks?status=${status}`}>
              <span class="tile-label">
                <StatusSign status={status} /> <span>{status}</span>
              </span>
              <span class="tile-count" data-status={status} safe>
                {formatCount(props.stats.stats[status])}
              </span>
            </a>
          </li>
        ))}
        <li>
          <a class="tile" href="/tasks">
            <span class="tile-label">All tasks</span>
            <span class="tile-count" data-status="total" safe>
              {formatCount(props.stats.total_tasks)}
            </span>
          </a>
        </li>
      </ul>
    </section>
  );
}

function MemberRow(props: {
  member: ClusterView["members"][number];
  cluster: ClusterView;
}): JSX.Element {
  const { member, cluster } = props;
  const isLeader = member.id === cluster.leader_id;
  const isSelf = member.id === cluster.node_id;
  return (
    <tr class={isSelf ? "self" : ""}>
      <th scope="row">
        <span safe>{member.id}</span>
        {isLeader ? <span class="tag tag-leader">leader</span> : null}
        {isSelf ? <span class="tag">this member</span> : null}
        <div class="cell-address">
          {/^https?:\/\//.test(member.url) ? (
            <a href={attributeText(member.url)} rel="noreferrer" safe>
              {member.url}
            </a>
          ) : (
            <span safe>{member.url}</span>
          )}
        </div>
      </th>
      <td data-label="Role">
        <span safe>{member.role}</span>
        {member.voter ? null : <span class="muted"> (no vote)</span>}
        {member.waiting === null ? null : (
          <div class="muted cell-address" safe>
            {member.waiting}
          </div>
        )}
      </td>
      <td class="number" data-label="Match" safe>
        {member.match_index === null ? "–" : formatCount(member.match_index)}
      </td>
      <td class="number" data-label="Lag" safe>
        {member.lag === null ? "–" : formatCount(member.lag)}
      </td>
      <td>
        {member.reachable || isSelf ? (
          <span class="state-good">✓ reachable</span>
        ) : (
          <span class="state-bad">✕ unreachable</span>
        )}
        {isSelf || member.last_contact_ms === null ? null : (
          <div class="muted" safe>
            {`heard ${formatDuration(member.last_contact_ms)} ago`}
          </div>
        )}
      </td>
    </tr>
  );
}

function Members(props: { cluster: ClusterView | null }): JSX.Element {
  const { cluster } = props;
  return (
    <section id="members" class="panel" aria-labelledby="members-heading">
      <h2 id="members-heading">Members</h2>
      {cluster === null ? (
        <p class="empty">Not known at the moment.</p>
      ) : (
        <>
          <dl class="strip">
            <div>
              <dt>Leader</dt>
              <dd safe>{cluster.leader_id ?? "none"}</dd>
            </div>
            <div>
              <dt>Term</dt>
              <dd safe>{formatCount(cluster.term)}</dd>
            </div>
            <div>
              <dt>Commit</dt>
              <dd safe>{formatCount(cluster.commit_index)}</dd>
            </div>
            <div>
              <dt>Applied here</dt>
              <dd safe>{formatCount(cluster.applied_index)}</dd>
            </div>
            <div>
              <dt>Role here</dt>
              <dd safe>{cluster.role}</dd>
            </div>
          </dl>
          <div class="table-scroll">
            <table class="cards">
              <caption class="visually-hidden">Members of the cluster</caption>
              <thead>
                <tr>
                  <th scope="col">Member</th>
                  <th scope="col">Role</th>
                  <th scope="col" class="number">
                    Match
                  </th>
                  <th scope="col" class="number">
                    Lag
                  </th>
                  <th scope="col">State</th>
                </tr>
              </thead>
              <tbody>
                {cluster.members.map((member) => (
                  <MemberRow member={member} cluster={cluster} />
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
    </section>
  );
}

/** Rows of workers shown; the rest is in the API. */
const WORKERS_SHOWN = 50;
/** Running tasks linked per worker. */
const RUNNING_SHOWN = 3;

function WorkerRow(props: { worker: WorkerView }): JSX.Element {
  const { worker } = props;
  return (
    <tr>
      <th scope="row">
        <span safe>{worker.id}</span>
        {worker.directive === "ok" ? null : <span class="tag">{worker.directive}</span>}
      </th>
      <td data-label="Member" safe>
        {worker.member ?? "outside"}
      </td>
      <td class="number" data-label="Slots" safe>
        {worker.slots === null
          ? String(worker.running.length)
          : `${worker.running.length}/${worker.slots}`}
      </td>
      <td
        class={worker.running.length === 0 ? "cell-running blank" : "cell-running"}
        data-label="Runs"
      >
        {worker.running.slice(0, RUNNING_SHOWN).map((running) => (
          <a href={`/tasks/${encodeURIComponent(running.task_id)}`} safe>
            {running.name}
          </a>
        ))}
        {worker.running.length > RUNNING_SHOWN ? (
          <span class="muted" safe>{`+${worker.running.length - RUNNING_SHOWN}`}</span>
        ) : null}
      </td>
      <td class={worker.stuck > 0 ? "number state-bad" : "number"} data-label="Stuck">
        {worker.stuck > 0 ? `${worker.stuck} stuck` : "0"}
      </td>
      <td class="number" data-label="Kills" safe>
        {`${worker.kills}/${worker.restarts}`}
      </td>
      <td class="number" data-label="Seen" safe>
        {formatAge(-worker.last_seen_ms, 0)}
      </td>
    </tr>
  );
}

function Workers(props: { workers: readonly WorkerView[] | null }): JSX.Element {
  const { workers } = props;
  return (
    <section id="workers" class="panel" aria-labelledby="workers-heading">
      <h2 id="workers-heading">Workers</h2>
      {workers === null ? (
        <p class="empty">Not known: the leader, which keeps the list, did not answer.</p>
      ) : workers.length === 0 ? (
        <p class="empty">No worker has asked for a task yet.</p>
      ) : (
        <div class="table-scroll">
          <table class="cards">
            <caption class="visually-hidden">Workers and what they run</caption>
            <thead>
              <tr>
                <th scope="col">Worker</th>
                <th scope="col">Member</th>
                <th scope="col" class="number">
                  <abbr title="Running / slots">Slots</abbr>
                </th>
                <th scope="col">Runs</th>
                <th scope="col" class="number">
                  Stuck
                </th>
                <th scope="col" class="number">
                  <abbr title="Executors killed / restarted">Kills</abbr>
                </th>
                <th scope="col" class="number">
                  Seen
                </th>
              </tr>
            </thead>
            <tbody>
              {workers.slice(0, WORKERS_SHOWN).map((worker) => (
                <WorkerRow worker={worker} />
              ))}
            </tbody>
          </table>
          {workers.length > WORKERS_SHOWN ? (
            <p class="muted">
              <span safe>{`${formatCount(workers.length - WORKERS_SHOWN)} more in `}</span>
              <a href="/api/workers">/api/workers</a>
            </p>
          ) : null}
        </div>
      )}
    </section>
  );
}

/** By element id; a type and not an interface, so that it is also a `Regions`. */
export type OverviewRegions = {
  readonly banner: JSX.Element;
  readonly counts: JSX.Element;
  readonly throughput: JSX.Element;
  readonly members: JSX.Element;
  readonly workers: JSX.Element;
  readonly newest: JSX.Element;
};

/** The parts of the page that live updates replace. */
export function overviewRegions(props: OverviewProps): OverviewRegions {
  return {
    banner: <Banner warning={props.warning} />,
    counts: <Counts stats={props.stats} />,
    throughput: <Throughput seconds={props.throughput} />,
    members: <Members cluster={props.cluster} />,
    workers: <Workers workers={props.workers} />,
    newest: (
      <section id="newest" class="panel" aria-labelledby="newest-heading">
        <div class="panel-head">
          <h2 id="newest-heading">Newest tasks</h2>
          <a href="/tasks">All tasks</a>
        </div>
        <TaskTable
          tasks={props.newest}
          now={props.now}
          allowed={props.allowed}
          returnTo="/"
          caption="Newest tasks"
          empty="No tasks yet. Submit one, and it appears here."
        />
      </section>
    ),
  };
}

export function OverviewPage(props: { frame: Frame; regions: OverviewRegions }): JSX.Element {
  // Rendered already: what is in them was escaped there.
  const safeRegions = props.regions;
  return (
    <Page frame={props.frame} banner={safeRegions.banner}>
      <h1 class="visually-hidden">Overview</h1>
      {safeRegions.counts}
      {safeRegions.throughput}
      <div class="columns">
        {safeRegions.members}
        {safeRegions.workers}
      </div>
      {safeRegions.newest}
    </Page>
  );
}
