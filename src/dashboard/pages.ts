/**
 * What every route of the dashboard has in common: who visits, whether he may, and how an answer looks,
 * a page for a browser and a part for htmx.
 */
import type { Log } from "../replica/ports.ts";
import { QueueError } from "../queue/service.ts";
import { Notice, markup } from "../../views/elements.tsx";
import type { Allowed } from "../../views/elements.tsx";
import { MessagePage } from "../../views/layout.tsx";
import type { AssetUrls, Frame } from "../../views/layout.tsx";
import { refusalOf } from "./refusals.ts";
import { ANONYMOUS, PAGE_HEADERS, allowedFor, isKnownHost, isSameOrigin } from "./security.ts";
import type { DashboardAuth, Principal } from "./security.ts";

export interface PagesDeps {
  readonly nodeId: string;
  readonly advertise: string;
  readonly version: string;
  readonly auth: DashboardAuth;
  readonly log: Log;
}

/** One request that was let in. */
export interface Visit {
  readonly request: Request;
  readonly url: URL;
  /** Null on public pages. */
  readonly principal: Principal | null;
  readonly allowed: Allowed;
  /** Asked for by htmx: answer with a part, not with a page. */
  readonly partial: boolean;
}

export interface Access {
  readonly needs?: keyof Allowed;
  /** Needs no sign-in. */
  readonly public?: boolean;
  /** An event stream: refusals are plain text. */
  readonly events?: boolean;
}

const NOTHING: Allowed = { submit: false, cancel: false, retry: false };

/** Words for what a redirect reports; nothing else of the address is shown. */
const DONE_NOTICES: Readonly<Record<string, string>> = {
  submitted: "The task was submitted.",
  cancelled: "The task was cancelled.",
  retried: "The task was queued again.",
};

export type DoneNotice = "submitted" | "cancelled" | "retried";

export class Pages {
  readonly #deps: PagesDeps;
  readonly #assets: AssetUrls;

  constructor(deps: PagesDeps, assets: AssetUrls) {
    this.#deps = deps;
    this.#assets = assets;
  }

  /** Lets the request in or refuses it, and answers what goes wrong inside `handle` with a page. */
  async visit(
    request: Request,
    access: Access,
    handle: (visit: Visit) => Response | Promise<Response>,
  ): Promise<Response> {
    const { auth, advertise } = this.#deps;
    if (!auth.required && !isKnownHost(request, advertise)) {
      return this.plain(421, "This member answers under its advertised address and loopback only.");
    }
    if (!isSameOrigin(request)) {
      return this.plain(403, "This request came from a page of another origin.");
    }
    const principal = access.public ? null : auth.required ? auth.authenticate(request) : ANONYMOUS;
    const visit: Visit = {
      request,
      url: new URL(request.url),
      principal,
      allowed: principal === null ? NOTHING : allowedFor(principal.role),
      partial: request.headers.get("hx-request") === "true",
    };
    if (principal === null && !access.public) return this.#askToSignIn(visit, access);
    if (access.needs !== undefined && !visit.allowed[access.needs]) {
      return this.problem(visit, 403, "Your role does not allow this.");
    }
    try {
      return await handle(visit);
    } catch (error) {
      if (error instanceof QueueError) {
        const refusal = refusalOf(error);
        return this.problem(visit, refusal.status, refusal.text);
      }
      this.#deps.log.error("A dashboard request failed", {
        path: visit.url.pathname,
        // An error itself is {} in a JSON record.
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      });
      return this.problem(visit, 500, "Something went wrong on this member; its log says what.");
    }
  }

  frame(visit: Visit, section: Frame["section"], title: string, events: string | null): Frame {
    const done = visit.url.searchParams.get("notice");
    const text =
      done !== null && Object.hasOwn(DONE_NOTICES, done) ? DONE_NOTICES[done] : undefined;
    return {
      assets: this.#assets,
      nodeId: this.#deps.nodeId,
      version: this.#deps.version,
      user: this.#deps.auth.required ? visit.principal : null,
      allowed: visit.allowed,
      section,
      title,
      events,
      notice: text === undefined ? null : { kind: "done", text },
    };
  }

  html(page: JSX.Element, status = 200): Response {
    return new Response(`<!doctype html>\n${markup(page)}`, {
      status,
      headers: { ...PAGE_HEADERS, "Content-Type": "text/html; charset=utf-8" },
    });
  }

  /** A part for htmx. It swaps answers of every status, so the status can be the true one. */
  part(element: JSX.Element, status = 200): Response {
    return new Response(markup(element), {
      status,
      headers: { ...PAGE_HEADERS, "Content-Type": "text/html; charset=utf-8" },
    });
  }

  plain(status: number, text: string, headers: Readonly<Record<string, string>> = {}): Response {
    return new Response(`${text}\n`, {
      status,
      headers: { ...PAGE_HEADERS, ...headers, "Content-Type": "text/plain; charset=utf-8" },
    });
  }

  /** 303: the browser asks for `path` with GET, and reloading it repeats nothing. */
  redirect(path: string, cookie: string | null = null): Response {
    const headers = new Headers(PAGE_HEADERS);
    headers.set("Location", path);
    if (cookie !== null) headers.append("Set-Cookie", cookie);
    return new Response(null, { status: 303, headers });
  }

  message(
    visit: Visit,
    status: number,
    heading: string,
    text: string,
    back: { readonly href: string; readonly text: string },
  ): Response {
    const frame = this.frame(visit, "none", heading, null);
    return this.html(MessagePage({ frame, heading, text, back }), status);
  }

  /** Something was refused: a notice for htmx, a page otherwise. */
  problem(visit: Visit, status: number, text: string, back = "/"): Response {
    if (visit.partial) return this.part(Notice({ kind: "problem", text }), status);
    return this.message(visit, status, "That did not work", text, { href: back, text: "Back" });
  }

  #askToSignIn(visit: Visit, access: Access): Response {
    const text = "You are not signed in, or your token is no longer valid.";
    if (access.events) return this.plain(401, text);
    if (visit.partial) {
      const link = { href: "/login", text: "Sign in" };
      return this.part(Notice({ kind: "problem", text, link }), 401);
    }
    const { pathname, search } = visit.url;
    const back = visit.request.method === "GET" ? pathname + search : "/";
    return this.redirect(`/login?return=${encodeURIComponent(back)}`);
  }
}
