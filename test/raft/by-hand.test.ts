/** The example of docs/raft.md, as it stands there: three cores driven by hand. */
import { expect, test } from "bun:test";

const DOCUMENT = new URL("../../docs/raft.md", import.meta.url).pathname;
const EXAMPLE = new URL("three-cores.ts", import.meta.url).pathname;

test("three cores driven by hand elect, replicate and commit", async () => {
  const { cores, network } = await import("./three-cores.ts");
  expect(network).toEqual([]);
  expect([...cores.values()].map(({ role }) => role)).toEqual(["leader", "follower", "follower"]);
  for (const core of cores.values()) {
    expect([core.term, core.vote, core.leader].map(String)).toEqual(["2", "a", "a"]);
    expect([core.commit, core.appliedIndex, core.lastIndex].map(Number)).toEqual([3, 3, 3]);
    const log = core.entriesFromCache(core.lastIndex, core.lastIndex) ?? [];
    expect(log.map(({ data }) => new TextDecoder().decode(data))).toEqual(["hello"]);
  }
  const progress = cores.get("a")?.progress().values() ?? [];
  expect([...progress].map(({ match, state }) => [Number(match), state])).toEqual([
    [3, "replicate"],
    [3, "replicate"],
  ]);
});

test("the document shows the example that runs", async () => {
  const example = (await Bun.file(EXAMPLE).text()).replace("../../src/raft", "./src/raft");
  const shown = /```ts\n([\s\S]*?)```/.exec(await Bun.file(DOCUMENT).text())?.[1];
  expect(shown).toBe(example);
});
