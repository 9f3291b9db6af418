/** The frame of every page: head, navigation, the banner about the member's state, the live connection. */
/** @jsxRuntime classic @jsx Html.createElement @jsxFrag Html.Fragment */
import { Html } from "@elysiajs/html";
import type { PropsWithChildren } from "@elysiajs/html";
import { Notice, attributeText } from "./elements.tsx";
import type { Allowed, NoticeKind } from "./elements.tsx";

export interface AssetUrls {
  readonly stylesheet: string;
  readonly icon: string;
  /** In the order in which they must run. */
  readonly scripts: readonly string[];
}

export interface Frame {
  readonly assets: AssetUrls;
  readonly nodeId: string;
  readonly version: string;
  /** Null: the member is open and asks nobody to sign in. */
  readonly user: { readonly name: string; readonly role: string } | null;
  readonly allowed: Allowed;
  readonly section: "overview" | "tasks" | "submit" | "none";
  readonly title: string;
  /** Address of the event stream, for pages that are live. */
  readonly events: string | null;
  readonly notice: {
    readonly kind: NoticeKind;
    readonly text: string;
    readonly link?: { readonly href: string; readonly text: string } | null;
  } | null;
}

export interface BannerProps {
  /** What needs attention, a line each: alarms, and why what the page shows may be old. Null: all is well. */
  readonly warning: string | null;
}

export function Banner(props: BannerProps): JSX.Element {
  return (
    <div id="banner" role="status" aria-live="polite">
      {(props.warning === null ? [] : props.warning.split("\n")).map((line) => (
        <p class="banner">
          <strong>Attention</strong> <span safe>{line}</span>
        </p>
      ))}
    </div>
  );
}

function NavigationLink(props: { href: string; text: string; current: boolean }): JSX.Element {
  return props.current ? (
    <a href={props.href} aria-current="page" safe>
      {props.text}
    </a>
  ) : (
    <a href={props.href} safe>
      {props.text}
    </a>
  );
}

export function Page(
  props: PropsWithChildren<{ frame: Frame; banner?: JSX.Element }>,
): JSX.Element {
  const { frame } = props;
  const safeBanner = props.banner ?? "";
  return (
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <title safe>{`${frame.title} · Flotilla ${frame.nodeId}`}</title>
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <link rel="icon" type="image/svg+xml" href={frame.assets.icon} />
        <link rel="stylesheet" href={frame.assets.stylesheet} />
        {frame.assets.scripts.map((script) => (
          <script defer src={script}></script>
        ))}
      </head>
      <body>
        <a class="skip" href="#main">
          Skip to the content
        </a>
        <header class="top">
          <a class="brand" href="/">
            <img src={frame.assets.icon} alt="" width="22" height="22" /> Flotilla
          </a>
          <nav aria-label="Pages">
            <NavigationLink href="/" text="Overview" current={frame.section === "overview"} />
            <NavigationLink href="/tasks" text="Tasks" current={frame.section === "tasks"} />
            {frame.allowed.submit ? (
              <NavigationLink href="/submit" text="Submit" current={frame.section === "submit"} />
            ) : null}
          </nav>
          <div class="top-right">
            <span class="muted">
              member <strong safe>{frame.nodeId}</strong>
            </span>
            {frame.events === null ? null : (
              <>
                <span id="connection" class="connection" data-state="idle">
                  not live
                </span>
                <button type="button" id="pause" class="button small" hidden aria-pressed="false">
                  Pause
                </button>
              </>
            )}
            {frame.user === null ? null : (
              <form method="post" action="/logout" class="action">
                <span class="muted" safe>{`${frame.user.name} (${frame.user.role})`}</span>{" "}
                <button type="submit" class="button small">
                  Sign out
                </button>
              </form>
            )}
          </div>
        </header>
        {safeBanner}
        <main id="main" tabindex="-1">
          <Notice
            kind={frame.notice?.kind ?? "none"}
            text={frame.notice?.text ?? ""}
            link={frame.notice?.link ?? null}
          />
          {props.children}
        </main>
        {frame.events === null ? null : (
          <div
            id="live"
            hidden
            hx-sse:connect={attributeText(frame.events)}
            hx-target="#live"
            hx-swap="innerHTML"
          ></div>
        )}
        <footer>
          <span safe>{`Flotilla ${frame.version}`}</span> · <a href="/swagger">API</a> ·{" "}
          <a href="/metrics">Metrics</a> · times are UTC
        </footer>
      </body>
    </html>
  );
}

/** A page that says one thing: not found, refused, no leader. */
export function MessagePage(props: {
  frame: Frame;
  heading: string;
  text: string;
  back: { readonly href: string; readonly text: string };
}): JSX.Element {
  return (
    <Page frame={props.frame}>
      <section class="panel narrow">
        <h1 safe>{props.heading}</h1>
        <p safe>{props.text}</p>
        <p>
          <a href={attributeText(props.back.href)} safe>
            {props.back.text}
          </a>
        </p>
      </section>
    </Page>
  );
}

/** Sign-in with an API token. */
export function LoginPage(props: {
  frame: Frame;
  returnTo: string;
  problem: string | null;
}): JSX.Element {
  return (
    <Page frame={props.frame}>
      <section class="panel narrow">
        <h1>Sign in</h1>
        <form method="post" action="/login" class="stack">
          <input type="hidden" name="return" value={attributeText(props.returnTo)} />
          {/* For password stores: a name to keep the token under. It is not read. */}
          <input
            type="text"
            name="username"
            autocomplete="username"
            value={attributeText(`flotilla ${props.frame.nodeId}`)}
            readonly
            hidden
          />
          <div class="field">
            <label for="token">API token</label>
            <input
              id="token"
              name="token"
              type="password"
              autocomplete="current-password"
              required
              autofocus
              aria-describedby="token-help"
            />
            <p id="token-help" class="muted">
              One of the tokens of this cluster's tokens file. Its role decides what you may do.
            </p>
            {props.problem === null ? null : (
              <p class="field-error" role="alert" safe>
                {props.problem}
              </p>
            )}
          </div>
          <button type="submit" class="button primary">
            Sign in
          </button>
        </form>
      </section>
    </Page>
  );
}
