import { describe, expect, test } from "bun:test";
import { harness, problem } from "./harness.ts";

const manifest = { cluster_id: "c-1", index: 42 };

function streamOf(...pieces: readonly string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start: (controller) => {
      for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
      controller.close();
    },
  });
}

describe("GET /api/cluster/backup", () => {
  test("streams the file under a name that says what it is", async () => {
    const { call, state } = harness();
    state.backup = () => ({ manifest, stream: streamOf("head\n", "body") });
    const response = await call("GET", "/api/cluster/backup");
    expect(response.status).toBe(200);
    expect(response.headers.get("content-disposition")).toBe(
      'attachment; filename="flotilla-c-1-42.backup"',
    );
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(await response.text()).toBe("head\nbody");
  });

  test("is refused while another one is made, with a time to try again", async () => {
    const { call } = harness();
    const refused = await call("GET", "/api/cluster/backup");
    expect(refused.headers.get("retry-after")).toBe("10");
    expect(await problem(refused)).toMatchObject({ status: 429, code: "backup-running" });
  });

  test("makes none for a HEAD", async () => {
    const { call, state } = harness();
    let made = 0;
    state.backup = () => {
      made += 1;
      return null;
    };
    expect((await call("HEAD", "/api/cluster/backup")).status).toBe(200);
    expect(made).toBe(0);
  });
});
