/** `GET /api/cluster/backup`: the state as one file, streamed. */
import { Elysia } from "elysia";
import type { ApiDeps } from "./deps.ts";
import { slow } from "./idle.ts";
import { operation } from "./openapi.ts";
import { Problem } from "./problem.ts";
import { ReadQuery } from "./schema.ts";
import { readQuery } from "./validation.ts";

const MEDIA_TYPE = "application/vnd.flotilla.backup";

export function backupRoutes({ queue, backup }: ApiDeps) {
  return new Elysia({ name: "flotilla/backup" }).get(
    "/api/cluster/backup",
    async ({ request, server }) => {
      const { consistency = "linearizable" } = readQuery(request.url, ReadQuery);
      const headers = { "content-type": MEDIA_TYPE, "cache-control": "no-store" };
      if (request.method === "HEAD") return new Response(null, { headers });
      // Everything that was acknowledged before is in it; a stale one needs neither leader nor quorum.
      await queue.readSettings(consistency);
      // A copy of a large state takes a while. A client that stops reading is cut off: nobody else gets a backup meanwhile.
      slow(server, request);
      const file = await backup(request.signal);
      if (file === null) {
        throw new Problem(429, "backup-running", "This member makes another backup just now.", {
          headers: { "retry-after": "10" },
        });
      }
      const { cluster_id, index } = file.manifest;
      return new Response(file.stream, {
        headers: {
          ...headers,
          "content-disposition": `attachment; filename="flotilla-${cluster_id}-${index}.backup"`,
        },
      });
    },
    operation({
      id: "getBackup",
      tag: "cluster",
      role: "admin",
      summary: "A backup of the whole state",
      description:
        "One file, for `--restore`: all tasks, settings and idempotency keys as of a moment during the call, with checksums. Made at the member that is asked; one at a time.",
      query: ReadQuery,
      answers: { 200: { description: "The file.", mediaType: MEDIA_TYPE } },
      problems: [429, 503],
    }),
  );
}
