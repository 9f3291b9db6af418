/** `/api/cluster/members`, `/api/cluster/transfer`: who belongs to the cluster, and who leads it. */
import { Elysia } from "elysia";
import { readJson } from "./body.ts";
import type { ApiDeps } from "./deps.ts";
import { idempotencyScope, replayedHeader } from "./idempotency.ts";
import { caller } from "./lifecycle.ts";
import { operation } from "./openapi.ts";
import { badFields } from "./problem.ts";
import { json } from "./render.ts";
import { MemberIn, MemberPath, NoQuery, TransferIn } from "./schema.ts";
import { readPath, readQuery } from "./validation.ts";

export function memberRoutes({ members }: ApiDeps) {
  return new Elysia({ name: "flotilla/members" })
    .post(
      "/api/cluster/members",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, MemberIn);
        const scope = idempotencyScope(request, caller(request).name, bytes);
        const { id, voter = false, replaces = null } = value;
        const url = memberUrl(value.url);
        const { member, added, replayed } = await members.add({ id, url, voter, replaces }, scope);
        return json(added ? 201 : 200, member, replayedHeader(replayed));
      },
      operation({
        id: "addMember",
        tag: "cluster",
        role: "admin",
        summary: "Add a member, or change its address",
        description:
          "It is a learner, which receives the log and counts for nothing, until it has caught up; then it becomes a voter by itself, but never so that the number of voters becomes even: `waiting` says what it waits for. `voter` overrides that; with `replaces` the other member goes in the same change. Start it with an empty folder and `--join`.",
        requestHeaders: ["Idempotency-Key"],
        body: "Member",
        answers: {
          201: { description: "Added.", model: "ClusterMember", headers: ["Idempotency-Replayed"] },
          200: {
            description: "It was a member already; its address is as asked for.",
            model: "ClusterMember",
            headers: ["Idempotency-Replayed"],
          },
        },
        problems: [409, 413, 415, 422, 429, 503],
      }),
    )
    .delete(
      "/api/cluster/members/:id",
      async ({ request, params }) => {
        const { id } = readPath(params, MemberPath);
        readQuery(request.url, NoQuery);
        await members.remove(id);
        return new Response(null, { status: 204 });
      },
      operation({
        id: "removeMember",
        tag: "cluster",
        role: "admin",
        summary: "Remove a member",
        description:
          "The leader too: it hands over first. Refused while the voters that would be left could not decide anything. The folder of a removed member is refused for ever; its id may come back with an empty one.",
        path: MemberPath,
        answers: { 204: { description: "It is out." } },
        problems: [404, 409, 503],
      }),
    )
    .post(
      "/api/cluster/transfer",
      async ({ request }) => {
        readQuery(request.url, NoQuery);
        const { value, bytes } = await readJson(request, TransferIn);
        const scope = idempotencyScope(request, caller(request).name, bytes);
        const { leaderId, replayed } = await members.transfer(value.to, scope);
        return json(200, { leader_id: leaderId }, replayedHeader(replayed));
      },
      operation({
        id: "transferLeadership",
        tag: "cluster",
        role: "admin",
        summary: "Hand leadership to a member",
        description:
          "Writes wait for the moment that it takes. When the member does not take over within some election timeouts, the leader goes on.",
        requestHeaders: ["Idempotency-Key"],
        body: "Transfer",
        answers: {
          200: {
            description: "It leads.",
            model: "Leader",
            headers: ["Idempotency-Replayed"],
          },
        },
        problems: [404, 409, 413, 415, 422, 429, 503],
      }),
    );
}

/** As an origin. @throws Problem 400 */
function memberUrl(text: string): string {
  const bad = (detail: string) => badFields([{ pointer: "/url", detail }]);
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw bad("must be a URL that begins with http:// or https://");
  const plain = url.pathname === "/" && !/[?#]/.test(text);
  if (!plain || url.username !== "" || url.password !== "")
    throw bad("must be scheme, host and port only");
  if (url.hostname === "0.0.0.0" || url.hostname === "[::]")
    throw bad("must not be a wildcard, which nobody can dial");
  return url.origin;
}
