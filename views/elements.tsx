/**
 * Small pieces that several pages share: status badges, times, buttons, notices. `safe` stands on every
 * element that prints what somebody typed: this JSX does not escape text by itself.
 */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import type { Status } from "../src/queue/types.ts";
import { formatAge, formatTime, isoTime } from "./format.ts";
import "./hx-elements.ts";

/**
 * What may be pressed. A viewer sees no buttons; the server refuses him all the same.
 */
export interface Allowed {
  readonly submit: boolean;
  readonly cancel: boolean;
  readonly retry: boolean;
}

/** Parts of a page by element id; each is replaced on its own by live updates. */
export type Regions = Readonly<Record<string, JSX.Element>>;

/** For text in an attribute: JSX escapes only the quote there, which would let `&lt;` be read as `<`. */
export function attributeText(text: string): string {
  return Html.escapeHtml(text);
}

/** A page or part as text. Views are synchronous. @throws TypeError for an asynchronous one. */
export function markup(element: JSX.Element): string {
  if (typeof element !== "string") throw new TypeError("A view must not be asynchronous");
  return element;
}

const STATUS_SIGNS: Readonly<Record<Status, string>> = {
  Pending: "◷",
  Running: "▶",
  Completed: "✓",
  Failed: "✕",
  Cancelled: "⊘",
};

export function StatusBadge(props: { status: Status; detail?: string | null }): JSX.Element {
  return (
    <span class={`badge status-${props.status.toLowerCase()}`}>
      <span aria-hidden="true" safe>
        {STATUS_SIGNS[props.status]}
      </span>{" "}
      <span>{props.status}</span>
      {props.detail ? (
        <span class="badge-detail" safe>
          {props.detail}
        </span>
      ) : null}
    </span>
  );
}

export function StatusSign(props: { status: Status }): JSX.Element {
  return (
    <span class={`sign status-${props.status.toLowerCase()}`} aria-hidden="true" safe>
      {STATUS_SIGNS[props.status]}
    </span>
  );
}

/** Age with the full time as its title. */
export function Age(props: { at: number; now: number }): JSX.Element {
  return (
    <time datetime={isoTime(props.at)} title={`${formatTime(props.at)} UTC`} safe>
      {formatAge(props.at, props.now)}
    </time>
  );
}

export function Timestamp(props: { at: number; now: number }): JSX.Element {
  return (
    <time datetime={isoTime(props.at)}>
      <span safe>{formatTime(props.at)}</span> UTC{" "}
      <span class="muted" safe>
        {`(${formatAge(props.at, props.now)})`}
      </span>
    </time>
  );
}

/** One button that posts; it works as a plain form when there is no JavaScript. */
export function ActionButton(props: {
  taskId: string;
  taskName: string;
  action: "cancel" | "retry";
  returnTo: string;
}): JSX.Element {
  const path = `/dashboard/tasks/${encodeURIComponent(props.taskId)}/${props.action}`;
  const label = props.action === "cancel" ? "Cancel" : "Retry";
  return (
    <form
      class="action"
      method="post"
      action={path}
      hx-post={path}
      hx-target="#notice"
      hx-swap="outerMorph"
      hx-confirm={attributeText(`${label} task “${props.taskName}” (${props.taskId})?`)}
    >
      <input type="hidden" name="return" value={attributeText(props.returnTo)} />
      <button
        type="submit"
        id={attributeText(`${props.action}-${props.taskId}`)}
        class={props.action === "cancel" ? "button small danger" : "button small"}
        aria-label={attributeText(`${label} ${props.taskName}`)}
      >
        {label}
      </button>
    </form>
  );
}

export type NoticeKind = "none" | "done" | "problem";

/** What came of an action. Announced by screen readers. */
export function Notice(props: {
  kind: NoticeKind;
  text: string;
  link?: { readonly href: string; readonly text: string } | null;
}): JSX.Element {
  return (
    <div
      id="notice"
      class={`notice notice-${props.kind}`}
      role={props.kind === "problem" ? "alert" : "status"}
      aria-live="polite"
    >
      {props.kind === "none" ? null : (
        <p>
          <span safe>{props.text}</span>
          {props.link ? (
            <>
              {" "}
              <a href={attributeText(props.link.href)} safe>
                {props.link.text}
              </a>
            </>
          ) : null}
        </p>
      )}
    </div>
  );
}

/** A live message: each part replaces the element of its id, keeping focus and what was typed. */
export function Partials(props: { regions: Regions; only: readonly string[] }): JSX.Element {
  return (
    <>
      {props.only.map((id) => {
        // Rendered already: what is in it was escaped there.
        const safeRegion = props.regions[id] ?? "";
        return (
          <hx-partial hx-target={`#${id}`} hx-swap="outerMorph">
            {safeRegion}
          </hx-partial>
        );
      })}
    </>
  );
}
