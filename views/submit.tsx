/** The form that submits a task. What was typed stays when something is wrong with it. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import { attributeText } from "./elements.tsx";
import { Page } from "./layout.tsx";
import type { Frame } from "./layout.tsx";

export const SUBMIT_FIELDS = [
  "name",
  "payload",
  "queue",
  "priority",
  "max_retries",
  "run_at",
] as const;
export type SubmitField = (typeof SUBMIT_FIELDS)[number];

export interface SubmitProps {
  readonly values: Readonly<Record<SubmitField, string>>;
  readonly errors: readonly { readonly field: string; readonly detail: string }[];
  /** Why the queue refused, or null. */
  readonly problem: string | null;
  readonly submitted: { readonly id: string; readonly name: string } | null;
  /** Sent along so that pressing twice submits once. */
  readonly key: string;
}

export const EMPTY_SUBMIT: SubmitProps["values"] = {
  name: "",
  payload: "",
  queue: "default",
  priority: "5",
  max_retries: "3",
  run_at: "",
};

interface InputProps {
  readonly name: SubmitField;
  readonly label: string;
  readonly hint: string;
  readonly form: SubmitProps;
  readonly kind: "text" | "number" | "json";
  readonly max?: string;
}

function Input(props: InputProps): JSX.Element {
  const { name, form } = props;
  const errors = form.errors.filter((error) => error.field === name);
  const invalid = errors.length > 0 ? "true" : "false";
  const describedBy = errors.length > 0 ? `${name}-error ${name}-hint` : `${name}-hint`;
  const value = form.values[name];
  return (
    <div class={`field field-${name}`}>
      <label for={name} safe>
        {props.label}
      </label>
      {props.kind === "json" ? (
        // The parser drops one line break after <textarea>: this one, not the user's.
        <textarea
          id={name}
          name={name}
          rows="8"
          spellcheck="false"
          aria-invalid={invalid}
          aria-describedby={describedBy}
          safe
        >
          {`\n${value}`}
        </textarea>
      ) : (
        <input
          id={name}
          name={name}
          type={props.kind}
          value={attributeText(value)}
          autocomplete="off"
          spellcheck="false"
          {...(props.kind === "number" ? { min: "0", max: props.max ?? "", step: "1" } : {})}
          aria-invalid={invalid}
          aria-describedby={describedBy}
        />
      )}
      <div id={`${name}-error`} class="field-error">
        {errors.map((error) => (
          <p safe>{error.detail}</p>
        ))}
      </div>
      <p id={`${name}-hint`} class="muted" safe>
        {props.hint}
      </p>
    </div>
  );
}

export function SubmitForm(props: SubmitProps): JSX.Element {
  const elsewhere = props.errors.filter(
    (error) => !SUBMIT_FIELDS.some((field) => field === error.field),
  );
  return (
    <form
      id="submit-form"
      class="stack"
      method="post"
      action="/dashboard/submit"
      hx-post="/dashboard/submit"
      hx-target="#submit-form"
      hx-swap="outerMorph"
      novalidate
    >
      <div id="submit-outcome" role="status" aria-live="polite">
        {props.submitted === null ? null : (
          <p class="notice notice-done">
            Submitted{" "}
            <a href={`/tasks/${encodeURIComponent(props.submitted.id)}`} safe>
              {props.submitted.name}
            </a>
          </p>
        )}
        {props.problem === null ? null : (
          <p class="notice notice-problem" safe>
            {props.problem}
          </p>
        )}
        {props.errors.length > 0 ? (
          <p class="notice notice-problem">Nothing was submitted: see the marked fields.</p>
        ) : null}
        {elsewhere.map((error) => (
          <p class="field-error" safe>{`${error.field}: ${error.detail}`}</p>
        ))}
      </div>
      <input type="hidden" name="key" value={attributeText(props.key)} />
      <Input
        name="name"
        label="Name"
        hint="Which handler runs it, for example echo, compute or sleep."
        form={props}
        kind="text"
      />
      <Input
        name="payload"
        label="Payload (JSON)"
        hint="Any JSON value, kept as typed. Empty: none."
        form={props}
        kind="json"
      />
      <div class="field-row">
        <Input name="queue" label="Queue" hint="Empty: default." form={props} kind="text" />
        <Input
          name="priority"
          label="Priority"
          hint="0 to 9, higher first."
          form={props}
          kind="number"
          max="9"
        />
        <Input
          name="max_retries"
          label="Retries"
          hint="After the first run."
          form={props}
          kind="number"
          max="100"
        />
      </div>
      <Input
        name="run_at"
        label="Not before"
        hint="Time such as 2030-01-31T08:00:00Z. Empty: at once."
        form={props}
        kind="text"
      />
      <div>
        <button type="submit" class="button primary">
          Submit task
        </button>
      </div>
    </form>
  );
}

export function SubmitPage(props: { frame: Frame; form: SubmitProps }): JSX.Element {
  return (
    <Page frame={props.frame}>
      <section class="panel form-panel">
        <h1>Submit a task</h1>
        {SubmitForm(props.form)}
      </section>
    </Page>
  );
}
