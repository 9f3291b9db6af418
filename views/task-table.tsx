/** The table of tasks, as the overview and the list show it. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import type { Task } from "../src/queue/types.ts";
import { ActionButton, Age, StatusBadge, attributeText } from "./elements.tsx";
import type { Allowed } from "./elements.tsx";
import { cutText, formatDuration, shortId } from "./format.ts";

/** Characters of a name in the table: about two lines. The task's own page shows all of it. */
const NAME_SHOWN_MAX = 72;

/** Failed and cancelled tasks can be run again. */
export function isRetryable(task: Task): boolean {
  return task.status === "Failed" || task.status === "Cancelled";
}

/** Pending and running tasks can be cancelled, those being cancelled need it no more. */
export function isCancellable(task: Task): boolean {
  return task.status === "Pending" || (task.status === "Running" && task.detail !== "cancelling");
}

/** Time it ran or has run, in milliseconds; null before its first start. */
export function runTimeMs(task: Task, now: number): number | null {
  if (task.started_at === null) return null;
  const end = task.completed_at ?? (task.status === "Running" ? now : null);
  return end === null ? null : Math.max(0, end - task.started_at);
}

function TaskRow(props: {
  task: Task;
  now: number;
  allowed: Allowed;
  returnTo: string;
}): JSX.Element {
  const { task, now, allowed } = props;
  const ran = runTimeMs(task, now);
  const name = cutText(task.name, NAME_SHOWN_MAX);
  return (
    <tr id={attributeText(`t-${task.id}`)}>
      <td data-label="Status">
        <StatusBadge status={task.status} detail={task.detail === "running" ? null : task.detail} />
        {task.status === "Running" && task.progress !== null ? (
          <progress
            max="100"
            value={String(task.progress.percent)}
            aria-label="Progress"
          ></progress>
        ) : null}
      </td>
      <td data-label="Task" class="cell-name">
        <a
          href={`/tasks/${encodeURIComponent(task.id)}`}
          class="task-name"
          title={name.cut ? attributeText(task.name) : undefined}
          safe
        >
          {name.cut ? `${name.text}…` : name.text}
        </a>{" "}
        <code class="muted" title={attributeText(task.id)} safe>
          {shortId(task.id)}
        </code>
        {task.last_error !== null && task.status !== "Completed" ? (
          <div class="cell-error" safe>
            {`${task.last_error.type}: ${task.last_error.message}`.slice(0, 160)}
          </div>
        ) : null}
      </td>
      <td data-label="Queue" class="cell-queue" safe>
        {task.queue}
      </td>
      <td data-label="Priority" class="number">
        {task.priority}
      </td>
      <td data-label="Retries" class="number" safe>
        {`${task.retries}/${task.max_retries}`}
      </td>
      <td data-label="Created">
        <Age at={task.created_at} now={now} />
      </td>
      <td data-label="Ran" class={ran === null ? "number blank" : "number"} safe>
        {ran === null ? "–" : formatDuration(ran)}
      </td>
      <td
        data-label="Worker"
        class={task.lease === null ? "cell-worker blank" : "cell-worker"}
        safe
      >
        {task.lease?.worker ?? "–"}
      </td>
      {allowed.cancel || allowed.retry ? (
        <td class="cell-actions">
          {allowed.cancel && isCancellable(task) ? (
            <ActionButton
              taskId={task.id}
              taskName={task.name}
              action="cancel"
              returnTo={props.returnTo}
            />
          ) : null}
          {allowed.retry && isRetryable(task) ? (
            <ActionButton
              taskId={task.id}
              taskName={task.name}
              action="retry"
              returnTo={props.returnTo}
            />
          ) : null}
        </td>
      ) : null}
    </tr>
  );
}

export function TaskTable(props: {
  tasks: readonly Task[];
  now: number;
  allowed: Allowed;
  returnTo: string;
  caption: string;
  empty: string;
}): JSX.Element {
  if (props.tasks.length === 0) {
    return (
      <p class="empty" safe>
        {props.empty}
      </p>
    );
  }
  return (
    <div class="table-scroll">
      <table class="tasks">
        <caption class="visually-hidden" safe>
          {props.caption}
        </caption>
        <thead>
          <tr>
            <th scope="col">Status</th>
            <th scope="col">Task</th>
            <th scope="col">Queue</th>
            <th scope="col" class="number">
              <abbr title="Priority, 0 to 9">Prio</abbr>
            </th>
            <th scope="col" class="number">
              Retries
            </th>
            <th scope="col">Created</th>
            <th scope="col" class="number">
              Ran
            </th>
            <th scope="col">Worker</th>
            {props.allowed.cancel || props.allowed.retry ? (
              <th scope="col">
                <span class="visually-hidden">Actions</span>
              </th>
            ) : null}
          </tr>
        </thead>
        <tbody>
          {props.tasks.map((task) => (
            <TaskRow
              task={task}
              now={props.now}
              allowed={props.allowed}
              returnTo={props.returnTo}
            />
          ))}
        </tbody>
      </table>
    </div>
  );
}
