/**
 * Problems for what never reaches a route: a member that is starting, the peers' path, a request that broke the
 * app itself. The composition root answers with them.
 */
import type { Random } from "../replica/ports.ts";
import { Problem, problemResponse } from "./problem.ts";

/** `problem` with an id of its own, as every answer of the API has one. */
function answer(problem: Problem, random: Random): Response {
  const id = random.hex(16);
  const response = problemResponse(problem, id);
  response.headers.set("x-request-id", id);
  response.headers.set("x-content-type-options", "nosniff");
  response.headers.set("cache-control", "no-store");
  return response;
}

/** Until the state is open; the port is bound before, so that a second process on it is refused at once. */
export function starting(random: Random): Response {
  return answer(
    new Problem(503, "starting", "This member is starting.", { headers: { "retry-after": "1" } }),
    random,
  );
}

/** The transport's refusal of an upgrade, whose text is a sentence for people. */
export async function refusedPeer(refusal: Response, random: Random): Promise<Response> {
  const { status } = refusal;
  const upgrade = refusal.headers.get("upgrade");
  const headers = {
    ...(upgrade === null ? {} : { upgrade }),
    ...(status === 503 ? { "retry-after": "1" } : {}),
  };
  const sentence = (await refusal.text()).trim();
  return answer(
    new Problem(status, PEER_CODES[status] ?? "peer-refused", sentence, { headers }),
    random,
  );
}

const PEER_CODES: Readonly<Record<number, string>> = {
  403: "peer-refused",
  426: "upgrade-required",
  503: "peers-unavailable",
};

/** On the peers' own port. */
export function peersOnly(random: Random): Response {
  return answer(new Problem(404, "no-such-route", "Only members speak here."), random);
}

/** Thrown where nothing should throw. */
export function broken(random: Random): Response {
  return answer(new Problem(500, "internal", "Something went wrong here."), random);
}
