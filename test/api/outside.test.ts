/** What no route sees is a problem all the same. */
import { expect, test } from "bun:test";
import { broken, peersOnly, refusedPeer, starting } from "../../src/api/outside.ts";
import type { Random } from "../../src/replica/ports.ts";
import { problem } from "./harness.ts";

const random: Random = {
  float: () => 0,
  uint32: () => 0,
  uuid: () => "",
  hex: (bytes) => "ab".repeat(bytes),
};

test("a member that is starting says so, and when to ask again", async () => {
  const response = starting(random);
  expect(response.headers.get("retry-after")).toBe("1");
  expect(await problem(response)).toMatchObject({ status: 503, code: "starting" });
});

test.each([
  [403, {}, "peer-refused", null],
  [426, { upgrade: "websocket" }, "upgrade-required", null],
  [503, {}, "peers-unavailable", "1"],
] as const)(
  "a peer that is refused with %d gets a problem",
  async (status, headers, code, after) => {
    const refusal = new Response("A sentence.\n", { status, headers });
    const response = await refusedPeer(refusal, random);
    expect(response.headers.get("retry-after")).toBe(after);
    expect(response.headers.get("upgrade")).toBe("upgrade" in headers ? headers.upgrade : null);
    expect(await problem(response)).toMatchObject({ status, code, detail: "A sentence." });
  },
);

test("the peers' own port has nothing else, and what broke is 500", async () => {
  expect((await problem(peersOnly(random))).status).toBe(404);
  expect((await problem(broken(random))).status).toBe(500);
});
