/** What a member says on its two outputs, and that it lives on without them. */
import { expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually, freePorts } from "./harness.ts";
import { scenario } from "./scenario.ts";
import { spawnNode, spawnShell } from "./start-process.ts";

/** What one test's member gets for itself: the tests run at the same time. */
class Place {
  readonly folder = mkdtempSync(join(tmpdir(), "flotilla-output-"));
  readonly port = freePorts(1)[0] ?? 0;
  readonly url = `http://127.0.0.1:${this.port}`;
  readonly args = ["--port", String(this.port), "--data", join(this.folder, "n1")];

  async healthy(): Promise<void> {
    await eventually("the member", async () => {
      const response = await fetch(`${this.url}/health`).catch(() => null);
      return response?.status === 200;
    });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Starts, waits until it serves, ends it, and returns what it said. */
async function lifeOf(
  place: Place,
  format: "json" | "pretty",
): Promise<{ out: string; err: string }> {
  const child = spawnNode([...place.args, "--log-format", format, "--log-level", "debug"]);
  const said = Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  try {
    await place.healthy();
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  } finally {
    child.kill("SIGKILL");
  }
  const [out, err] = await said;
  return { out, err };
}

scenario(
  "the first line on standard output is the listening line, at a restart as well, in both formats",
  async () => {
    using place = new Place();
    for (let start = 0; start < 2; start++) {
      const json = await lifeOf(place, "json");
      expect(JSON.parse(json.out.split("\n")[0] ?? "")).toMatchObject({
        msg: "listening",
        id: "n1",
        url: place.url,
      });
      // The rest of the log follows on standard output.
      expect(json.out).toContain('"msg":"draining"');
      const pretty = await lifeOf(place, "pretty");
      expect(pretty.out).toStartWith(`flotilla n1 listening on ${place.url}\n`);
      expect(pretty.out).toContain("draining");
    }
  },
);

scenario(
  "what is logged before the listening line goes to standard error, as records",
  async () => {
    using place = new Place();
    await lifeOf(place, "json");
    const { out, err } = await lifeOf(place, "json");
    const lines = err.split("\n").filter((line) => line !== "");
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ node: "n1" });
    for (const line of out.split("\n").filter((text) => text !== "")) JSON.parse(line);
  },
);

scenario(
  "a reader that takes one line and leaves does not end the member, and the log goes on at standard error",
  async () => {
    using place = new Place();
    const err = join(place.folder, "err");
    const pid = join(place.folder, "pid");
    const shell = spawnShell(
      `{ sh -c 'echo $$ > ${pid}; exec '"$NODE ${place.args.join(" ")} --log-format json" 2> ${err}; } | head -1`,
    );
    try {
      expect(JSON.parse((await firstLine(shell.stdout)) ?? "")).toMatchObject({ msg: "listening" });
      await place.healthy();
      process.kill(Number(readFileSync(pid, "utf8")), "SIGTERM");
      expect(await shell.exited).toBe(0);
      expect(readFileSync(err, "utf8")).toContain('"msg":"draining"');
    } finally {
      stop(pid);
    }
  },
);

for (const [what, redirection] of [
  ["both outputs closed at the start", ">&- 2>&-"],
  ["both on a full disk", ">/dev/full 2>/dev/full"],
] as const)
  scenario(`${what}: the member serves, and ends as it should`, async () => {
    using place = new Place();
    const pid = join(place.folder, "pid");
    const shell = spawnShell(
      `sh -c 'echo $$ > ${pid}; exec '"$NODE ${place.args.join(" ")} ${redirection}"; echo code $?`,
    );
    try {
      await place.healthy();
      const created = await fetch(`${place.url}/api/tasks`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name: "echo", payload: 1 }),
      });
      expect(created.status).toBe(201);
      process.kill(Number(readFileSync(pid, "utf8")), "SIGTERM");
      expect(await new Response(shell.stdout).text()).toBe("code 0\n");
    } finally {
      stop(pid);
    }
  });

scenario("both readers leave: the member goes on, and its drain ends with 0", async () => {
  using place = new Place();
  const pid = join(place.folder, "pid");
  const code = join(place.folder, "code");
  const shell = spawnShell(
    `{ sh -c 'echo $$ > ${pid}; exec '"$NODE ${place.args.join(" ")}"; echo $? > ${code}; } 2>&1 | head -1`,
  );
  try {
    await place.healthy();
    expect(await firstLine(shell.stdout)).toContain("listening");
    await fetch(`${place.url}/api/tasks`, { method: "POST", body: "x" });
    await place.healthy();
    process.kill(Number(readFileSync(pid, "utf8")), "SIGTERM");
    await shell.exited;
    expect(readFileSync(code, "utf8")).toBe("0\n");
  } finally {
    stop(pid);
  }
});

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string | null> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes("\n")) break;
  }
  return text.split("\n")[0] ?? null;
}

/** The member that a shell started, should it still run. */
function stop(pidFile: string): void {
  try {
    process.kill(Number(readFileSync(pidFile, "utf8")), "SIGKILL");
  } catch {
    // It has ended, as the test expected.
  }
}
