/** The list of tasks: filters in the address, newest first, pages by cursor. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import { STATUSES } from "../src/queue/types.ts";
import type { Status, Task } from "../src/queue/types.ts";
import type { Stats } from "../src/queue/service.ts";
import { StatusSign, attributeText } from "./elements.tsx";
import type { Allowed } from "./elements.tsx";
import { formatCount } from "./format.ts";
import { Banner, Page } from "./layout.tsx";
import type { Frame } from "./layout.tsx";
import { TaskTable } from "./task-table.tsx";

/** The filter as it stands in the address; empty text means not filtered. */
export interface TaskListAddress {
  readonly statuses: readonly Status[];
  readonly queue: string;
  readonly name: string;
  readonly q: string;
  readonly cursor: string;
}

export interface TaskListProps {
  readonly warning: string | null;
  readonly address: TaskListAddress;
  readonly stats: Stats;
  readonly tasks: readonly Task[];
  readonly next: string | null;
  readonly now: number;
  readonly allowed: Allowed;
}

/** The address of a filtered list. The only place that writes it. */
export function taskListHref(address: TaskListAddress): string {
  const query = new URLSearchParams();
  for (const status of address.statuses) query.append("status", status);
  if (address.queue !== "") query.set("queue", address.queue);
  if (address.name !== "") query.set("name", address.name);
  if (address.q !== "") query.set("q", address.q);
  if (address.cursor !== "") query.set("cursor", address.cursor);
  const text = query.toString();
  return text === "" ? "/tasks" : `/tasks?${text}`;
}

function StatusTabs(props: { address: TaskListAddress; stats: Stats }): JSX.Element {
  const { address, stats } = props;
  const tab = (label: Status | "All", statuses: readonly Status[], count: number) => {
    const current =
      statuses.length === address.statuses.length &&
      statuses.every((status) => address.statuses.includes(status));
    const href = taskListHref({ ...address, statuses, cursor: "" });
    return (
      <li>
        <a class="tab" href={attributeText(href)} aria-current={current ? "true" : "false"}>
          {label === "All" ? null : <StatusSign status={label} />} <span>{label}</span>{" "}
          <span class="tab-count" data-status={label} safe>
            {formatCount(count)}
          </span>
        </a>
      </li>
    );
  };
  return (
    <nav id="status-tabs" aria-label="Status">
      <ul class="tabs">
        {tab("All", [], stats.total_tasks)}
        {STATUSES.map((status) => tab(status, [status], stats.stats[status]))}
      </ul>
    </nav>
  );
}

function FilterField(props: {
  name: string;
  label: string;
  value: string;
  hint: string;
}): JSX.Element {
  const id = `filter-${props.name}`;
  return (
    <div class="field">
      <label for={id} safe>
        {props.label}
      </label>
      <input
        id={id}
        name={props.name}
        type="search"
        value={attributeText(props.value)}
        placeholder={props.hint}
        maxlength="255"
        autocomplete="off"
        spellcheck="false"
      />
    </div>
  );
}

function Filters(props: { address: TaskListAddress }): JSX.Element {
  const { address } = props;
  return (
    <form method="get" action="/tasks" class="filters" role="search">
      {address.statuses.map((status) => (
        <input type="hidden" name="status" value={status} />
      ))}
      <FilterField name="q" label="Find" value={address.q} hint="start of an id or name" />
      <FilterField name="name" label="Name" value={address.name} hint="exact name" />
      <FilterField name="queue" label="Queue" value={address.queue} hint="exact queue" />
      <div class="filter-buttons">
        <button type="submit" class="button primary">
          Filter
        </button>
        <a class="button" href="/tasks">
          Reset
        </a>
      </div>
    </form>
  );
}

/** By element id; a type and not an interface, so that it is also a `Regions`. */
export type TaskListRegions = {
  readonly banner: JSX.Element;
  readonly "status-tabs": JSX.Element;
  readonly "task-list": JSX.Element;
};

/** The parts of the page that live updates replace. */
export function taskListRegions(props: TaskListProps): TaskListRegions {
  const { address } = props;
  return {
    banner: <Banner warning={props.warning} />,
    "status-tabs": <StatusTabs address={address} stats={props.stats} />,
    "task-list": (
      <section id="task-list" class="panel" aria-label="Tasks">
        <TaskTable
          tasks={props.tasks}
          now={props.now}
          allowed={props.allowed}
          returnTo={taskListHref(address)}
          caption="Tasks, newest first"
          empty="No task matches."
        />
        <nav class="pages" aria-label="Pages of the list">
          {address.cursor === "" ? null : (
            <a class="button" href={attributeText(taskListHref({ ...address, cursor: "" }))}>
              First page
            </a>
          )}
          {props.next === null ? null : (
            <a
              class="button"
              rel="next"
              href={attributeText(taskListHref({ ...address, cursor: props.next }))}
            >
              Older tasks
            </a>
          )}
        </nav>
      </section>
    ),
  };
}

export function TaskListPage(props: {
  frame: Frame;
  address: TaskListAddress;
  regions: TaskListRegions;
}): JSX.Element {
  // Rendered already: what is in them was escaped there.
  const safeRegions = props.regions;
  return (
    <Page frame={props.frame} banner={safeRegions.banner}>
      <h1>Tasks</h1>
      {safeRegions["status-tabs"]}
      <Filters address={props.address} />
      {safeRegions["task-list"]}
    </Page>
  );
}
