/** Each start that is refused: exit code 2, and one sentence. */
import { afterAll, expect } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts, RealCluster } from "./harness.ts";
import { scenario } from "./scenario.ts";
import { type Ended, endOf } from "./start-process.ts";

const folder = mkdtempSync(join(tmpdir(), "flotilla-refused-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Exit code 2 and one sentence on standard error, nothing on standard output. */
function expectRefusal({ code, out, err }: Ended, ...says: readonly string[]): void {
  expect(err.trimEnd().split("\n")).toHaveLength(1);
  for (const word of says) expect(err).toContain(word);
  expect(out).toBe("");
  expect(code).toBe(2);
}

scenario("a data folder that is a file, or below one", async () => {
  const file = join(folder, "a-file");
  writeFileSync(file, "kept\n");
  expectRefusal(await endOf(["--port", "0", "--data", file]), file, "--data", "file of that name");
  expectRefusal(await endOf(["--port", "0", "--data", join(file, "n1")]), "--data");
  expect(await Bun.file(file).text()).toBe("kept\n");
});

scenario(
  "a data folder that cannot be made or written, named by its variable where that gave it",
  async () => {
    expectRefusal(await endOf(["--port", "0", "--data", "/proc/flotilla"]), "--data");
    // A read-only file system, for root as well.
    const env = { FLOTILLA_DATA: "/sys/kernel" };
    const readOnly = await endOf(["--port", "0"], env);
    expectRefusal(readOnly, "/sys/kernel", "FLOTILLA_DATA");
  },
);

scenario(
  "a data folder of somebody else (needs setpriv when run as root)",
  async () => {
    const theirs = join(folder, "theirs");
    mkdirSync(theirs);
    chmodSync(theirs, 0o500);
    chmodSync(folder, 0o755);
    const asNobody =
      process.getuid?.() === 0
        ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        : [];
    const script = `
      const { openDataFolder } = await import(${JSON.stringify(join(import.meta.dir, "../../src/storage/data-folder.ts"))});
      try { openDataFolder(${JSON.stringify(theirs)}); } catch (error) { console.log(error.name, error.message); }`;
    const child = Bun.spawn([...asNobody, "bun", "-e", script], {
      cwd: tmpdir(),
      env: { PATH: process.env["PATH"] ?? "", HOME: folder },
      stdout: "pipe",
      stderr: "pipe",
    });
    const said = await new Response(child.stdout).text();
    expect(said + (await new Response(child.stderr).text())).toContain("EACCES");
    expect(said).toContain("--data");
  },
  { skip: process.getuid?.() === 0 && Bun.which("setpriv") === null },
);

scenario(
  "a data folder in use, a port in use, a foreign id; the running member does not notice",
  async () => {
    const cluster = await RealCluster.start({ size: 1 });
    try {
      const member = cluster.member(0);
      const data = join(cluster.folder, "n1");
      const [other] = freePorts(1);
      const used = await endOf(["--data", data, "--port", String(other)]);
      expectRefusal(used, data, "in use by another process", "--data");
      const [port, empty] = [String(member.port), join(folder, "empty")];
      expectRefusal(await endOf(["--data", empty, "--port", port]), `--port ${port}`, "in use");
      expectRefusal(
        await endOf(["--data", empty], { FLOTILLA_PORT: port }),
        `FLOTILLA_PORT ${port}`,
        "in use",
      );
      expect((await member.fetch("/health")).status).toBe(200);
      await member.kill("SIGTERM");
      const foreign = await endOf(["--data", data, "--port", port, "--id", "n9"]);
      expectRefusal(foreign, "belongs to member n1", "--id");
    } finally {
      await cluster.stop();
    }
  },
);

scenario("a host that is not of this machine, a name that does not resolve", async () => {
  const args = ["--port", "0", "--insecure", "--data", join(folder, "host")];
  // TEST-NET-1: documented to belong to nobody.
  expectRefusal(await endOf([...args, "--host", "192.0.2.1"]), "--host 192.0.2.1");
  expectRefusal(await endOf([...args, "--host", "nowhere.invalid"]), "--host nowhere.invalid");
});

scenario("a bad variable and a flag given twice", async () => {
  expectRefusal(await endOf([], { FLOTILLA_PORT: "http" }), "FLOTILLA_PORT", "whole number");
  expectRefusal(await endOf(["--port", "1", "--port", "2"]), "--port is given twice");
});
