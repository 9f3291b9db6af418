/**
 * Refuses submits while too much waits to be stored. At twice the capacity as many are refused as are taken, so a refusal has to
 * cost next to nothing: it comes before the router and before anything else is known of the request, its body and its caller
 * too, and is made of parts that are there already. (To somebody without a token it says no more than `/health` does.)
 */
import type { ApiDeps } from "./deps.ts";
import { newRequestId, SECURITY_HEADERS } from "./lifecycle.ts";
import type { Metrics } from "./metrics.ts";
import { Problem, problemHeaders, problemText } from "./problem.ts";

const TOO_BUSY = new Problem(429, "overloaded", "More tasks wait to be stored than can be soon.", {
  headers: { "retry-after": "1" },
});
const HEADERS = new Headers({ ...SECURITY_HEADERS, ...problemHeaders(TOO_BUSY) });
/** An id of a request needs no escaping, and belongs between these. */
const [BEFORE_ID = "", AFTER_ID = ""] = problemText(TOO_BUSY, "\n").split("\\n");
const PATHS = new Set(["/api/tasks", "/api/tasks/bulk"]);

/** Null: `request` may be taken, as far as that is known here. */
export type Shed = (request: Request) => Response | null;

export function shedding({ queue, random }: ApiDeps, metrics: Metrics): Shed {
  return (request) => {
    if (!queue.refusesSubmits() || request.method !== "POST") return null;
    const { url } = request;
    // Behind "http://" or "https://" and the host; one with a query is refused for that by its route.
    const path = url.slice(url.indexOf("/", 8));
    // A repeat under a key may have its answer already, and adds nothing then.
    if (!PATHS.has(path) || request.headers.has("idempotency-key")) return null;
    const id = newRequestId(request, random);
    metrics.observeRequest("POST", path, TOO_BUSY.httpStatus, 0);
    const response = new Response(BEFORE_ID + id + AFTER_ID, {
      status: TOO_BUSY.httpStatus,
      headers: HEADERS,
    });
    response.headers.set("x-request-id", id);
    return response;
  };
}
