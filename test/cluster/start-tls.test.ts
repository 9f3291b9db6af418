import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { makeCertificates, OPENSSL, type TestCertificates } from "../tools/certificates.ts";
import { type ClusterView, eventually, freePorts, type TaskJson } from "./harness.ts";
import { spawnNode } from "./start-process.ts";

setDefaultTimeout(60_000);

if (OPENSSL === null) console.log("TLS is not tested: openssl is not installed.");

describe.skipIf(OPENSSL === null)("HTTPS and WSS on the one port", () => {
  let made: TestCertificates;
  let ports: number[];
  let children: Subprocess[];

  beforeEach(() => {
    made = makeCertificates(["n1", "n2", "n3"]);
    ports = freePorts(3);
    children = [];
  });
  afterEach(async () => {
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(children.map((child) => child.exited));
    rmSync(made.folder, { recursive: true, force: true });
  });

  const urlOf = (at: number): string => `https://127.0.0.1:${ports[at]}`;

  /** Starts member `at`; what it says on both outputs grows in what is returned. */
  function start(at: number, extra: readonly string[], peerPorts = ports): { text: string } {
    const id = `n${at + 1}`;
    const peers = peerPorts.map((port, i) => `n${i + 1}=https://127.0.0.1:${port}`).join(",");
    const own = ["--id", id, "--port", String(ports[at]), "--data", join(made.folder, "data", id)];
    const tls = ["--tls-cert", made.cert(id), "--tls-key", made.key(id)];
    const child = spawnNode([...own, ...tls, "--peers", peers, ...extra]);
    children.push(child);
    const said = { text: "" };
    for (const stream of [child.stdout, child.stderr]) void follow(stream, said);
    return said;
  }

  async function ask<T>(at: number, path: string, init: RequestInit = {}): Promise<T | null> {
    const tls = { ca: readFileSync(made.ca, "utf8") };
    const response = await fetch(`${urlOf(at)}${path}`, { ...init, tls }).catch(() => null);
    return response?.ok === true ? ((await response.json()) as T) : null;
  }

  test("three members find each other by a private CA, and a task goes from one to another", async () => {
    const said = [0, 1, 2].map((at) => start(at, ["--peer-ca", made.ca]));
    const view = await eventually("a leader", async () => {
      const seen = await ask<ClusterView>(0, "/api/cluster");
      return seen?.leader_id !== null && seen?.members.every((member) => member.reachable) === true
        ? seen
        : null;
    });
    expect(view.members.map(({ url }) => url).sort()).toEqual([0, 1, 2].map(urlOf).sort());
    expect(said[0]?.text).toContain(`listening`);
    expect(said[0]?.text).toContain(urlOf(0));
    const created = await eventually("a submit", () =>
      ask<TaskJson>(1, "/api/tasks", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name: "echo", payload: "x".repeat(100_000) }),
      }),
    );
    const task = await eventually("the result", () =>
      ask<TaskJson>(2, `/api/tasks/${created.id}?wait=5`),
    );
    expect(task).toMatchObject({ status: "Completed", result: "x".repeat(100_000) });
    // Plain HTTP is not answered on the port.
    const plain = await fetch(`http://127.0.0.1:${ports[0]}/health`).catch(() => null);
    expect(plain?.ok ?? false).toBe(false);
  });

  test("peers on a port of their own with mutual TLS: nobody else gets a word in", async () => {
    const peerPorts = freePorts(3);
    for (const at of [0, 1, 2]) {
      start(at, ["--peer-ca", made.ca, "--peer-port", String(peerPorts[at])], peerPorts);
    }
    const view = await eventually("a leader", async () => {
      const seen = await ask<ClusterView>(0, "/api/cluster");
      return seen?.leader_id !== null && seen?.members.every((member) => member.reachable) === true
        ? seen
        : null;
    });
    // Clients are told the other port.
    expect(view.members.map(({ url }) => url).sort()).toEqual([0, 1, 2].map(urlOf).sort());
    const ca = readFileSync(made.ca, "utf8");
    const own = {
      cert: readFileSync(made.cert("n1"), "utf8"),
      key: readFileSync(made.key("n1"), "utf8"),
    };
    const statusOf = (url: string, tls: object): Promise<number | null> =>
      fetch(url, { tls: { ca, ...tls } }).then(
        ({ status }) => status,
        () => null,
      );
    expect(await statusOf(`https://127.0.0.1:${peerPorts[0]}/api/stats`, {})).toBeNull();
    expect(await statusOf(`https://127.0.0.1:${peerPorts[0]}/raft`, own)).toBe(426);
    expect(await statusOf(`https://127.0.0.1:${peerPorts[0]}/api/stats`, own)).toBe(404);
    expect(await statusOf(`${urlOf(0)}/raft`, {})).toBe(404);
  });

  test("a member whose peers' CA is another one neither leads nor follows, and says why", async () => {
    start(0, ["--peer-ca", made.ca]);
    start(1, ["--peer-ca", made.ca]);
    const other = makeCertificates([]);
    try {
      const said = start(2, ["--peer-ca", other.ca]);
      await eventually("its warning", async () => said.text.includes("certificate"));
      expect(await ask(2, "/health")).toBeNull();
    } finally {
      rmSync(other.folder, { recursive: true, force: true });
    }
  });
});

async function follow(stream: ReadableStream<Uint8Array>, said: { text: string }): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) said.text += decoder.decode(chunk, { stream: true });
}
