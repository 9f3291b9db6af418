import { expect } from "bun:test";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually, freePorts, type TaskJson } from "./harness.ts";
import { scenario } from "./scenario.ts";

const ROOT = join(import.meta.dir, "..", "..");
/** What a package manager puts below node_modules; dependencies lie beside it. */
const PACKAGE = ["package.json", "tsconfig.json", "bunfig.toml", "src", "views"];

/** A project that depends on the package. */
function install(): string {
  const project = mkdtempSync(join(tmpdir(), "flotilla-project-"));
  const modules = join(project, "node_modules");
  mkdirSync(join(modules, "flotilla"), { recursive: true });
  // Copied and not linked: Bun treats a file by its real path.
  for (const name of PACKAGE) {
    cpSync(join(ROOT, name), join(modules, "flotilla", name), { recursive: true });
  }
  for (const name of readdirSync(join(ROOT, "node_modules"))) {
    if (!name.startsWith(".")) symlinkSync(join(ROOT, "node_modules", name), join(modules, name));
  }
  writeFileSync(join(project, "package.json"), '{"name":"mine","type":"module"}\n');
  return project;
}

scenario(
  "a project that installed the package runs a member with its own handlers, pages, and a client",
  async () => {
    const project = install();
    writeFileSync(
      join(project, "handlers.ts"),
      `import { NonRetryableError } from "flotilla";
     export default {
       async mine(payload) {
         if (payload === null) throw new NonRetryableError("nothing to do");
         return { got: payload };
       },
     };\n`,
    );
    writeFileSync(
      join(project, "submit.ts"),
      `import { FlotillaClient } from "flotilla/client";
     const client = new FlotillaClient({ urls: [process.env.URL] });
     const task = await client.enqueue("mine", { a: 1 });
     console.log(JSON.stringify(await task.result({ timeoutMs: 15_000 })));
     await client.close();\n`,
    );
    const port = freePorts(1)[0] ?? 0;
    const url = `http://127.0.0.1:${port}`;
    const member = Bun.spawn(
      ["bun", "run", "node_modules/flotilla/src/node.ts", "--port", String(port)].concat([
        "--handlers",
        "./handlers.ts",
      ]),
      { cwd: project, stdin: "ignore", stdout: "ignore", stderr: "pipe" },
    );
    try {
      await eventually("the member, or its end", async () => {
        if (member.exitCode !== null) throw new Error(await new Response(member.stderr).text());
        return (await fetch(`${url}/health`).catch(() => null))?.ok === true;
      });
      const client = Bun.spawn(["bun", "run", "submit.ts"], {
        cwd: project,
        env: { ...process.env, URL: url },
        stdout: "pipe",
        stderr: "inherit",
      });
      expect(await new Response(client.stdout).text()).toBe('{"got":{"a":1}}\n');
      const refused = await fetch(`${url}/api/tasks`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"name":"mine","payload":null}',
      });
      const { id } = (await refused.json()) as TaskJson;
      const failed = (await (await fetch(`${url}/api/tasks/${id}?wait=10`)).json()) as TaskJson;
      expect(failed).toMatchObject({ status: "Failed", detail: "non_retryable" });
      for (const path of ["/", "/tasks", `/tasks/${id}`, "/submit", "/swagger", "/swagger/json"]) {
        expect({ path, status: (await fetch(url + path)).status }).toEqual({ path, status: 200 });
      }
    } finally {
      member.kill("SIGKILL");
      await member.exited;
      rmSync(project, { recursive: true, force: true });
    }
  },
);
