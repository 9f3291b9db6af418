/** One task: what it is, what happened to it, what it left behind. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import type { PropsWithChildren } from "@elysiajs/html";
import type { Attempt, LogLine, RetryPolicy, Task, TaskError } from "../src/queue/types.ts";
import { ActionButton, StatusBadge, Timestamp } from "./elements.tsx";
import type { Allowed, Regions } from "./elements.tsx";
import {
  cutText,
  formatAge,
  formatCount,
  formatDuration,
  formatTime,
  indentJson,
} from "./format.ts";
import { Banner, Page } from "./layout.tsx";
import type { Frame } from "./layout.tsx";
import { isCancellable, isRetryable, runTimeMs } from "./task-table.tsx";

export interface TaskPageProps {
  readonly warning: string | null;
  readonly task: Task;
  readonly attempts: readonly Attempt[];
  readonly logs: readonly LogLine[];
  /** Lines before the shown ones, and whether there are newer ones that were not read. */
  readonly logsSkipped: number;
  readonly logsMore: boolean;
  readonly now: number;
  readonly allowed: Allowed;
}

/** Characters of payload, result, message or stack that a page carries. */
const TEXT_SHOWN = 20_000;
/** Attempts shown, newest first. */
const ATTEMPTS_SHOWN = 50;

function Field(props: PropsWithChildren<{ label: string }>): JSX.Element {
  return (
    <div>
      <dt safe>{props.label}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

function Plain(props: { text: string }): JSX.Element {
  return <span safe>{props.text}</span>;
}

function retryText(retry: RetryPolicy): string {
  if (retry.kind === "none") return "none";
  const jitter = retry.jitter ? ", jitter" : "";
  const factor = retry.kind === "exponential" ? ` × ${retry.factor}` : "";
  return `${retry.kind}: ${formatDuration(retry.initial_ms)}${factor}, at most ${formatDuration(retry.max_ms)}${jitter}`;
}

function Head(props: TaskPageProps): JSX.Element {
  const { task, allowed } = props;
  const here = `/tasks/${encodeURIComponent(task.id)}`;
  return (
    <div id="task-head" class="task-head">
      <div>
        <h1 safe>{task.name}</h1>
        <p>
          <StatusBadge
            status={task.status}
            detail={task.detail === "running" ? null : task.detail}
          />{" "}
          <code class="muted" safe>
            {task.id}
          </code>
        </p>
        {task.progress === null || task.status === "Completed" ? null : (
          <p class="progress-line">
            <progress
              max="100"
              value={String(task.progress.percent)}
              aria-label="Progress"
            ></progress>{" "}
            <span safe>
              {`${Math.round(task.progress.percent)} %${task.progress.message === null ? "" : ` · ${task.progress.message}`}`}
            </span>
          </p>
        )}
      </div>
      <div class="task-actions">
        {allowed.cancel && isCancellable(task) ? (
          <ActionButton taskId={task.id} taskName={task.name} action="cancel" returnTo={here} />
        ) : null}
        {allowed.retry && isRetryable(task) ? (
          <ActionButton taskId={task.id} taskName={task.name} action="retry" returnTo={here} />
        ) : null}
      </div>
    </div>
  );
}

function Fields(props: TaskPageProps): JSX.Element {
  const { task, now } = props;
  const ran = runTimeMs(task, now);
  return (
    <section id="task-fields" class="panel" aria-labelledby="fields-heading">
      <h2 id="fields-heading">Details</h2>
      <dl class="fields">
        <Field label="Queue">
          <Plain text={task.queue} />
        </Field>
        <Field label="Priority">
          <Plain text={String(task.priority)} />
        </Field>
        <Field label="Attempt">
          <Plain text={String(task.attempt)} />
        </Field>
        <Field label="Retries">
          <Plain text={`${task.retries} of ${task.max_retries}`} />
        </Field>
        <Field label="Crashes">
          <Plain text={String(task.crashes)} />
        </Field>
        <Field label="Retry policy">
          <Plain text={retryText(task.retry)} />
        </Field>
        <Field label="Time-out">
          <Plain text={task.timeout_ms === null ? "none" : formatDuration(task.timeout_ms)} />
        </Field>
        <Field label="Created">
          <Timestamp at={task.created_at} now={now} />
        </Field>
        <Field label="Runs at">
          <Timestamp at={task.run_at} now={now} />
        </Field>
        <Field label="Started">
          {task.started_at === null ? (
            <Plain text="–" />
          ) : (
            <Timestamp at={task.started_at} now={now} />
          )}
        </Field>
        <Field label="Finished">
          {task.completed_at === null ? (
            <Plain text="–" />
          ) : (
            <Timestamp at={task.completed_at} now={now} />
          )}
        </Field>
        <Field label="Ran">
          <Plain text={ran === null ? "–" : formatDuration(ran)} />
        </Field>
        <Field label="Version">
          <Plain text={formatCount(task.version)} />
        </Field>
        {task.lease === null ? (
          <Field label="Lease">
            <Plain text="none" />
          </Field>
        ) : (
          <>
            <Field label="Worker">
              <Plain text={task.lease.worker} />
            </Field>
            <Field label="Fence">
              <Plain text={formatCount(task.lease.fence)} />
            </Field>
            <Field label="Lease ends">
              <Timestamp at={task.lease.expires_at} now={now} />
            </Field>
          </>
        )}
      </dl>
    </section>
  );
}

interface Moment {
  readonly at: number;
  readonly text: string;
  readonly kind: "plain" | "good" | "bad";
}

/** What happened, oldest first, as far as the task's row and its attempts tell. */
function moments(props: TaskPageProps): readonly Moment[] {
  const { task, attempts } = props;
  const list: Moment[] = [{ at: task.created_at, text: "Submitted", kind: "plain" }];
  for (const attempt of attempts) {
    list.push({
      at: attempt.started_at,
      text: `Attempt ${attempt.attempt} claimed by ${attempt.worker}`,
      kind: "plain",
    });
    if (attempt.finished_at === null) continue;
    list.push({
      at: attempt.finished_at,
      text: `Attempt ${attempt.attempt} ${attempt.outcome}`,
      kind:
        attempt.outcome === "completed"
          ? "good"
          : attempt.error === null && attempt.outcome !== "crashed"
            ? "plain"
            : "bad",
    });
  }
  if (task.completed_at !== null) {
    list.push({
      at: task.completed_at,
      text: task.status + (task.detail === null ? "" : ` (${task.detail})`),
      kind: task.status === "Completed" ? "good" : "bad",
    });
  } else if (task.status === "Pending" && task.run_at > props.now) {
    list.push({ at: task.run_at, text: "Runs next", kind: "plain" });
  }
  return list
    .map((moment, index) => ({ moment, index }))
    .toSorted((a, b) => a.moment.at - b.moment.at || a.index - b.index)
    .map((item) => item.moment);
}

/** Moments shown: the first and the newest. */
const MOMENTS_SHOWN = 40;

function Timeline(props: TaskPageProps): JSX.Element {
  const all = moments(props);
  const shown =
    all.length <= MOMENTS_SHOWN ? all : [...all.slice(0, 1), ...all.slice(1 - MOMENTS_SHOWN)];
  let before: number | null = null;
  return (
    <section id="task-timeline" class="panel" aria-labelledby="timeline-heading">
      <h2 id="timeline-heading">Timeline</h2>
      <ol class="timeline">
        {shown.map((moment) => {
          const gap = before === null ? "" : `+${formatDuration(moment.at - before)}`;
          before = moment.at;
          return (
            <li class={`moment-${moment.kind}`}>
              <span safe>{moment.text}</span>
              <span class="muted" safe>
                {`${formatTime(moment.at)} · ${formatAge(moment.at, props.now)}${gap === "" ? "" : ` · ${gap}`}`}
              </span>
            </li>
          );
        })}
      </ol>
    </section>
  );
}

function ErrorText(props: { error: TaskError; id: string }): JSX.Element {
  const { error } = props;
  return (
    <div class="error-text">
      <p>
        <strong safe>{error.type}</strong>
        {error.retryable ? null : <span class="tag">not retryable</span>}
      </p>
      <pre safe>{cutText(error.message, TEXT_SHOWN).text}</pre>
      {error.stack === null ? null : (
        <details id={props.id} hx-morph-skip="true">
          <summary>Stack</summary>
          <pre safe>{cutText(error.stack, TEXT_SHOWN).text}</pre>
        </details>
      )}
    </div>
  );
}

function Attempts(props: TaskPageProps): JSX.Element {
  const newestFirst = props.attempts.toReversed();
  return (
    <section id="task-attempts" class="panel" aria-labelledby="attempts-heading">
      <h2 id="attempts-heading">Attempts</h2>
      {newestFirst.length === 0 ? <p class="empty">It has not run yet.</p> : null}
      <ol class="attempts">
        {newestFirst.slice(0, ATTEMPTS_SHOWN).map((attempt) => (
          <li>
            <p class="attempt-line">
              <strong safe>{`#${attempt.attempt}`}</strong>{" "}
              <span class={`outcome outcome-${attempt.outcome}`}>{attempt.outcome}</span>{" "}
              <span class="muted" safe>
                {`${attempt.worker} · fence ${attempt.fence} · ${formatTime(attempt.started_at)} · ${
                  attempt.finished_at === null
                    ? "running"
                    : formatDuration(attempt.finished_at - attempt.started_at)
                }`}
              </span>
            </p>
            {attempt.error === null ? null : (
              <ErrorText error={attempt.error} id={`stack-${attempt.attempt}`} />
            )}
          </li>
        ))}
      </ol>
      {newestFirst.length > ATTEMPTS_SHOWN ? (
        <p class="muted">
          Older attempts:{" "}
          <a href={`/api/tasks/${encodeURIComponent(props.task.id)}/attempts`}>in the API</a>
        </p>
      ) : null}
    </section>
  );
}

function JsonPanel(props: {
  id: string;
  heading: string;
  text: string | null;
  taskId: string;
  empty: string;
}): JSX.Element {
  // Cut before laying out: a payload may be as large as the cluster's settings allow.
  const cut = props.text === null ? null : cutText(props.text, TEXT_SHOWN);
  return (
    <section id={props.id} class="panel" aria-labelledby={`${props.id}-heading`}>
      <h2 id={`${props.id}-heading`} safe>
        {props.heading}
      </h2>
      {cut === null ? (
        <p class="empty" safe>
          {props.empty}
        </p>
      ) : (
        <>
          <pre class="json" tabindex="0" safe>
            {indentJson(cut.text)}
          </pre>
          {cut.cut ? (
            <p class="muted">
              Cut here. All of it:{" "}
              <a href={`/api/tasks/${encodeURIComponent(props.taskId)}`}>in the API</a>
            </p>
          ) : null}
        </>
      )}
    </section>
  );
}

function Logs(props: TaskPageProps): JSX.Element {
  return (
    <section id="task-logs" class="panel" aria-labelledby="logs-heading">
      <h2 id="logs-heading">Log</h2>
      {props.logs.length === 0 ? (
        <p class="empty">No log lines.</p>
      ) : (
        <>
          {props.logsSkipped > 0 ? (
            <p class="muted">
              <span safe>{`${formatCount(props.logsSkipped)} earlier lines: `}</span>
              <a href={`/api/tasks/${encodeURIComponent(props.task.id)}/logs`}>in the API</a>
            </p>
          ) : null}
          <ol class="log" tabindex="0">
            {props.logs.map((line) => (
              <li>
                <span
                  class="muted"
                  safe
                >{`${formatTime(line.at).slice(11)} #${line.attempt}`}</span>{" "}
                <span safe>{line.line}</span>
              </li>
            ))}
          </ol>
          {props.logsMore ? (
            <p class="muted">
              There are newer lines:{" "}
              <a href={`/api/tasks/${encodeURIComponent(props.task.id)}/logs`}>in the API</a>
            </p>
          ) : null}
        </>
      )}
    </section>
  );
}

/** By element id; a type and not an interface, so that it is also a `Regions`. */
export type TaskRegions = {
  readonly banner: JSX.Element;
  readonly "task-head": JSX.Element;
  readonly "task-fields": JSX.Element;
  readonly "task-timeline": JSX.Element;
  readonly "task-payload": JSX.Element;
  readonly "task-result": JSX.Element;
  readonly "task-attempts": JSX.Element;
  readonly "task-logs": JSX.Element;
};

/** The parts of the page that live updates replace. */
export function taskRegions(props: TaskPageProps): TaskRegions {
  const { task } = props;
  return {
    banner: <Banner warning={props.warning} />,
    "task-head": <Head {...props} />,
    "task-fields": <Fields {...props} />,
    "task-timeline": <Timeline {...props} />,
    "task-payload": (
      <JsonPanel
        id="task-payload"
        heading="Payload"
        text={task.payload}
        taskId={task.id}
        empty="No payload."
      />
    ),
    "task-result": (
      <JsonPanel
        id="task-result"
        heading="Result"
        text={task.result}
        taskId={task.id}
        empty={task.completed_at === null ? "No result yet." : "It left no result."}
      />
    ),
    "task-attempts": <Attempts {...props} />,
    "task-logs": <Logs {...props} />,
  };
}

/** Shown live when the task has been purged or cleared while somebody looked at it. */
export function taskGoneRegions(id: string): Regions {
  return {
    "task-head": (
      <div id="task-head" class="task-head">
        <div>
          <h1>This task is gone</h1>
          <p>
            It was cleared, or its retention time has passed. <code safe>{id}</code>
          </p>
        </div>
      </div>
    ),
  };
}

export function TaskPage(props: { frame: Frame; regions: TaskRegions }): JSX.Element {
  // Rendered already: what is in them was escaped there.
  const safeRegions = props.regions;
  return (
    <Page frame={props.frame} banner={safeRegions.banner}>
      <p class="crumbs">
        <a href="/tasks">Tasks</a> / task
      </p>
      {safeRegions["task-head"]}
      <div class="columns">
        {safeRegions["task-fields"]}
        {safeRegions["task-timeline"]}
      </div>
      <div class="columns">
        {safeRegions["task-payload"]}
        {safeRegions["task-result"]}
      </div>
      {safeRegions["task-attempts"]}
      {safeRegions["task-logs"]}
    </Page>
  );
}
