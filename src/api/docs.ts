/**
 * `/swagger`: the OpenAPI document, made once from the routes themselves, and its page, whose every file this
 * process serves: no other origin, no inline script.
 */
import { Elysia, type AnyElysia } from "elysia";
import bundlePath from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import iconPath from "swagger-ui-dist/favicon-32x32.png" with { type: "file" };
import stylePath from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import { cleanDocument } from "./openapi.ts";
import { Problem } from "./problem.ts";
import { jsonText } from "./render.ts";
import { MODELS } from "./schema.ts";

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Flotilla API</title>
<link rel="icon" type="image/png" href="/swagger/assets/favicon.png">
<link rel="stylesheet" href="/swagger/assets/swagger-ui.css">
<link rel="stylesheet" href="/swagger/assets/page.css">
<script defer src="/swagger/assets/swagger-ui-bundle.js"></script>
<script defer src="/swagger/assets/init.js"></script>
</head>
<body><div id="swagger-ui"></div></body>
</html>
`;

const INIT = `SwaggerUIBundle({ url: "/swagger/json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });\n`;

/** No answer here has links to operations: their column only made the page wider than a phone. */
const STYLE = ".swagger-ui .response-col_links { display: none }\n";

/** Under the name in the URL. */
const FILES: Readonly<Record<string, { readonly path: string; readonly type: string }>> = {
  "swagger-ui-bundle.js": { path: bundlePath, type: "text/javascript; charset=utf-8" },
  "swagger-ui.css": { path: stylePath, type: "text/css; charset=utf-8" },
  "favicon.png": { path: iconPath, type: "image/png" },
};

/** The document that describes `routes`, as JSON text. */
async function documentText(routes: readonly AnyElysia[], version: string): Promise<string> {
  // Loaded when it is first asked for: a start should not pay for it.
  const { swagger } = await import("@elysiajs/swagger");
  const described = new Elysia().model(MODELS).use(
    swagger({
      documentation: {
        info: {
          title: "Flotilla",
          version,
          description:
            "A distributed task queue that is its own database. Any member answers any request; errors are RFC 9457 problems.",
        },
        tags: [
          { name: "tasks", description: "Submit, look, cancel, retry." },
          { name: "leases", description: "The protocol of workers." },
          { name: "workers", description: "Who executes what." },
          { name: "cluster", description: "Members and settings." },
          { name: "health", description: "For supervisors and dashboards." },
        ],
        components: {
          securitySchemes: {
            bearer: {
              type: "http",
              scheme: "bearer",
              description: "Without configured tokens none is needed.",
            },
          },
        },
      },
      excludeStaticFile: false,
    }),
  );
  for (const plugin of routes) described.use(plugin);
  const raw = await described.handle(new Request("http://localhost/swagger/json"));
  return JSON.stringify(cleanDocument(await raw.json()));
}

export function docsRoutes(routes: readonly AnyElysia[], version: string) {
  let text: Promise<string> | null = null;
  return new Elysia({ name: "flotilla/docs" })
    .get(
      "/swagger",
      () =>
        new Response(PAGE, {
          headers: {
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": POLICY,
          },
        }),
      { detail: { hide: true } },
    )
    .get(
      "/swagger/json",
      async () => {
        // Built when it is first asked for: a start should not pay for it.
        text ??= documentText(routes, version);
        return jsonText(200, await text);
      },
      { detail: { hide: true } },
    )
    .get(
      "/swagger/assets/:file",
      ({ params }) => {
        if (params.file === "init.js") return asset(INIT, "text/javascript; charset=utf-8");
        if (params.file === "page.css") return asset(STYLE, "text/css; charset=utf-8");
        const file = Object.hasOwn(FILES, params.file) ? FILES[params.file] : undefined;
        if (file === undefined) {
          throw new Problem(404, "no-such-route", "There is no such file.");
        }
        return asset(Bun.file(file.path), file.type);
      },
      { detail: { hide: true } },
    );
}

/** Revalidated, not guessed: another version of this build may serve other files under the same name. */
function asset(body: Blob | string, type: string): Response {
  return new Response(body, { headers: { "content-type": type, "cache-control": "no-cache" } });
}
