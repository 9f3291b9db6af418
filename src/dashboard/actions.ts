/** What the dashboard's forms do. Each works as a plain form (redirect) and through htmx (a part). */
import type { Random } from "../replica/ports.ts";
import type { NewTask } from "../queue/types.ts";
import { QueueError } from "../queue/service.ts";
import type { TaskQueue, WriteContext } from "../queue/service.ts";
import { Notice } from "../../views/elements.tsx";
import { LoginPage } from "../../views/layout.tsx";
import { EMPTY_SUBMIT, SubmitForm, SubmitPage, SUBMIT_FIELDS } from "../../views/submit.tsx";
import type { SubmitField, SubmitProps } from "../../views/submit.tsx";
import type { DoneNotice, Pages, Visit } from "./pages.ts";
import { refusalOf } from "./refusals.ts";
import { localPath } from "./security.ts";
import type { DashboardAuth } from "./security.ts";

/** The form as typed; what was left empty is left out. */
export interface SubmitInput {
  readonly name: string;
  /** JSON text; empty: no payload. */
  readonly payloadText: string;
  readonly queue?: string;
  readonly priority?: number;
  readonly max_retries?: number;
  /** RFC 3339. */
  readonly run_at?: string;
}

export interface ActionsDeps {
  readonly queue: TaskQueue;
  readonly random: Random;
  readonly auth: DashboardAuth;
  readonly newTask: (input: SubmitInput) => NewTask | { readonly errors: SubmitProps["errors"] };
}

/** Above the API's limit for a body nothing is read; form encoding makes text up to three times longer. */
const FORM_MAX_BYTES = 8 * 1024 * 1024;
const KEY_PATTERN = /^[0-9a-f]{32}$/;

export class Actions {
  readonly #deps: ActionsDeps;
  readonly #pages: Pages;

  constructor(deps: ActionsDeps, pages: Pages) {
    this.#deps = deps;
    this.#pages = pages;
  }

  emptyForm(): SubmitProps {
    return {
      values: EMPTY_SUBMIT,
      errors: [],
      problem: null,
      submitted: null,
      key: this.#deps.random.hex(16),
    };
  }

  async submit(visit: Visit): Promise<Response> {
    const form = await readForm(visit.request);
    if (typeof form === "string") return this.#pages.problem(visit, 400, form, "/submit");
    const values = Object.fromEntries(
      SUBMIT_FIELDS.map((name) => [name, form.get(name) ?? ""]),
    ) as Record<SubmitField, string>;
    const empty = this.emptyForm();
    const given = form.get("key") ?? "";
    const key = KEY_PATTERN.test(given) ? given : empty.key;

    const checked = inputOf(values);
    const task = "errors" in checked ? checked : this.#deps.newTask(checked.input);
    if ("errors" in task) {
      // Browsers report each 4xx to the console; a form that is shown again with marks is no fault of a page.
      const status = visit.partial ? 200 : 400;
      return this.#form(visit, { ...empty, values, errors: task.errors }, status);
    }
    try {
      const { ids } = await this.#deps.queue.submit([task], this.#context(visit, { key, values }));
      const id = ids[0] ?? task.id;
      if (!visit.partial) return this.#pages.redirect(done(`/tasks/${id}`, "submitted"));
      return this.#form(visit, { ...empty, values, submitted: { id, name: task.name } }, 200);
    } catch (error) {
      if (!(error instanceof QueueError)) throw error;
      const refusal = refusalOf(error);
      // The same key again when the outcome is unknown: sending the form once more then submits once.
      const next = error.reason === "outcome-unknown" ? key : empty.key;
      return this.#form(
        visit,
        { ...empty, values, problem: refusal.text, key: next },
        refusal.status,
      );
    }
  }

  async cancel(visit: Visit, id: string): Promise<Response> {
    await this.#deps.queue.cancel(id, this.#context(visit, null));
    return this.#done(visit, id, "cancelled", "Cancelled.");
  }

  async retry(visit: Visit, id: string): Promise<Response> {
    await this.#deps.queue.retry(id, null, this.#context(visit, null));
    return this.#done(visit, id, "retried", "Queued again.");
  }

  async signIn(visit: Visit): Promise<Response> {
    const form = await readForm(visit.request);
    if (typeof form === "string") return this.#pages.problem(visit, 400, form, "/login");
    const returnTo = localPath(form.get("return"));
    if (!this.#deps.auth.required) return this.#pages.redirect(returnTo);
    const cookie = this.#deps.auth.sessionCookie((form.get("token") ?? "").trim());
    if (cookie !== null) return this.#pages.redirect(returnTo, cookie);
    const frame = this.#pages.frame(visit, "none", "Sign in", null);
    const problem = "This token is not known to this member.";
    return this.#pages.html(LoginPage({ frame, returnTo, problem }), 401);
  }

  signOut(): Response {
    return this.#pages.redirect(
      this.#deps.auth.required ? "/login" : "/",
      this.#deps.auth.endSessionCookie(),
    );
  }

  #context(
    visit: Visit,
    submit: { readonly key: string; readonly values: SubmitProps["values"] } | null,
  ): WriteContext {
    const principal = visit.principal?.name ?? "anonymous";
    if (submit === null) return { principal, idempotency: null };
    const hash = new Bun.CryptoHasher("sha256")
      .update(JSON.stringify(SUBMIT_FIELDS.map((name) => submit.values[name])))
      .digest("hex");
    const idempotency = { principal, route: "POST /dashboard/submit", key: submit.key, hash };
    return { principal, idempotency };
  }

  #form(visit: Visit, form: SubmitProps, status: number): Response {
    if (visit.partial) return this.#pages.part(SubmitForm(form), status);
    const frame = this.#pages.frame(visit, "submit", "Submit a task", null);
    return this.#pages.html(SubmitPage({ frame, form }), status);
  }

  async #done(visit: Visit, id: string, notice: DoneNotice, text: string): Promise<Response> {
    const task = `/tasks/${encodeURIComponent(id)}`;
    if (visit.partial) {
      return this.#pages.part(Notice({ kind: "done", text, link: { href: task, text: id } }));
    }
    const form = await readForm(visit.request);
    const back = typeof form === "string" ? null : form.get("return");
    return this.#pages.redirect(done(back === null ? task : localPath(back), notice));
  }
}

/** `path` with what was done, for the notice there. */
function done(path: string, notice: DoneNotice): string {
  const url = new URL(path, "http://localhost");
  url.searchParams.set("notice", notice);
  return url.pathname + url.search;
}

/** The fields of a form, or a sentence. */
async function readForm(request: Request): Promise<URLSearchParams | string> {
  const type = request.headers.get("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
  if (type !== "application/x-www-form-urlencoded") return "This is not one of our forms.";
  if (Number(request.headers.get("content-length") ?? 0) > FORM_MAX_BYTES) {
    return "The form is too large.";
  }
  const text = await request.text();
  return text.length > FORM_MAX_BYTES ? "The form is too large." : new URLSearchParams(text);
}

/** Numbers are checked here, so that a bad one is shown beside its field and not turned into another. */
function inputOf(
  values: SubmitProps["values"],
): { readonly input: SubmitInput } | { readonly errors: SubmitProps["errors"] } {
  const errors: { field: string; detail: string }[] = [];
  const whole = (field: "priority" | "max_retries"): number | undefined => {
    const text = values[field].trim();
    if (text === "") return undefined;
    if (/^-?\d{1,9}$/.test(text)) return Number(text);
    errors.push({ field, detail: "must be a whole number" });
    return undefined;
  };
  const priority = whole("priority");
  const maxRetries = whole("max_retries");
  const queue = values.queue.trim();
  const runAt = values.run_at.trim();
  if (values.name.trim() === "") errors.push({ field: "name", detail: "must not be empty" });
  if (values.payload.trim() !== "" && !isJson(values.payload)) {
    errors.push({ field: "payload", detail: `is not JSON: ${jsonFault(values.payload)}` });
  }
  if (errors.length > 0) return { errors };
  return {
    input: {
      name: values.name.trim(),
      payloadText: values.payload.trim(),
      ...(queue === "" ? {} : { queue }),
      ...(priority === undefined ? {} : { priority }),
      ...(maxRetries === undefined ? {} : { max_retries: maxRetries }),
      ...(runAt === "" ? {} : { run_at: runAt }),
    },
  };
}

function isJson(text: string): boolean {
  return jsonFault(text) === null;
}

function jsonFault(text: string): string | null {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
