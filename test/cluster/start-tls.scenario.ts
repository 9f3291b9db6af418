/** HTTPS and WSS on the one port, and peers on a port of their own. */
import { expect } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { makeCertificates, OPENSSL, type TestCertificates } from "../tools/certificates.ts";
import { type ClusterView, eventually, freePorts, type TaskJson } from "./harness.ts";
import { scenario } from "./scenario.ts";
import { spawnNode } from "./start-process.ts";

if (OPENSSL === null) console.log("TLS is not tested: openssl is not installed.");

/** Up to three members with certificates of one CA; they end with the test. */
class TlsMembers {
  readonly made: TestCertificates = makeCertificates(["n1", "n2", "n3"]);
  readonly ports = freePorts(3);
  readonly #children: Subprocess[] = [];

  async end(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all(this.#children.map((child) => child.exited));
    rmSync(this.made.folder, { recursive: true, force: true });
  }

  readonly urlOf = (at: number): string => `https://127.0.0.1:${this.ports[at]}`;

  /** Starts member `at`; what it says on both outputs grows in what is returned. */
  start(at: number, extra: readonly string[], peerPorts = this.ports): { text: string } {
    const id = `n${at + 1}`;
    const peers = peerPorts.map((port, i) => `n${i + 1}=https://127.0.0.1:${port}`).join(",");
    const own = [
      "--id",
      id,
      "--port",
      String(this.ports[at]),
      "--data",
      join(this.made.folder, "data", id),
    ];
    const tls = ["--tls-cert", this.made.cert(id), "--tls-key", this.made.key(id)];
    const child = spawnNode([...own, ...tls, "--peers", peers, ...extra]);
    this.#children.push(child);
    const said = { text: "" };
    for (const stream of [child.stdout, child.stderr]) void follow(stream, said);
    return said;
  }

  async ask<T>(at: number, path: string, init: RequestInit = {}): Promise<T | null> {
    const tls = { ca: readFileSync(this.made.ca, "utf8") };
    const response = await fetch(`${this.urlOf(at)}${path}`, { ...init, tls }).catch(() => null);
    return response?.ok === true ? ((await response.json()) as T) : null;
  }
}

function tls(what: string, run: (at: TlsMembers) => Promise<void>): void {
  const start = async (): Promise<void> => {
    const at = new TlsMembers();
    try {
      await run(at);
    } finally {
      await at.end();
    }
  };
  scenario(`TLS: ${what} (needs openssl)`, start, { skip: OPENSSL === null });
}

tls(
  "three members find each other by a private CA, and a task goes from one to another",
  async (at) => {
    const said = [0, 1, 2].map((one) => at.start(one, ["--peer-ca", at.made.ca]));
    const view = await eventually("a leader", async () => {
      const seen = await at.ask<ClusterView>(0, "/api/cluster");
      return seen?.leader_id !== null && seen?.members.every((member) => member.reachable) === true
        ? seen
        : null;
    });
    expect(view.members.map(({ url }) => url).sort()).toEqual([0, 1, 2].map(at.urlOf).sort());
    expect(said[0]?.text).toContain(`listening`);
    expect(said[0]?.text).toContain(at.urlOf(0));
    const created = await eventually("a submit", () =>
      at.ask<TaskJson>(1, "/api/tasks", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name: "echo", payload: "x".repeat(100_000) }),
      }),
    );
    const task = await eventually("the result", () =>
      at.ask<TaskJson>(2, `/api/tasks/${created.id}?wait=5`),
    );
    expect(task).toMatchObject({ status: "Completed", result: "x".repeat(100_000) });
    // Plain HTTP is not answered on the port.
    const plain = await fetch(`http://127.0.0.1:${at.ports[0]}/health`).catch(() => null);
    expect(plain?.ok ?? false).toBe(false);
  },
);

tls("peers on a port of their own with mutual TLS: nobody else gets a word in", async (at) => {
  const peerPorts = freePorts(3);
  for (const one of [0, 1, 2]) {
    at.start(one, ["--peer-ca", at.made.ca, "--peer-port", String(peerPorts[one])], peerPorts);
  }
  const view = await eventually("a leader", async () => {
    const seen = await at.ask<ClusterView>(0, "/api/cluster");
    return seen?.leader_id !== null && seen?.members.every((member) => member.reachable) === true
      ? seen
      : null;
  });
  // Clients are told the other port.
  expect(view.members.map(({ url }) => url).sort()).toEqual([0, 1, 2].map(at.urlOf).sort());
  const ca = readFileSync(at.made.ca, "utf8");
  const own = {
    cert: readFileSync(at.made.cert("n1"), "utf8"),
    key: readFileSync(at.made.key("n1"), "utf8"),
  };
  const statusOf = (url: string, tls: object): Promise<number | null> =>
    fetch(url, { tls: { ca, ...tls } }).then(
      ({ status }) => status,
      () => null,
    );
  expect(await statusOf(`https://127.0.0.1:${peerPorts[0]}/api/stats`, {})).toBeNull();
  expect(await statusOf(`https://127.0.0.1:${peerPorts[0]}/raft`, own)).toBe(426);
  expect(await statusOf(`https://127.0.0.1:${peerPorts[0]}/api/stats`, own)).toBe(404);
  expect(await statusOf(`${at.urlOf(0)}/raft`, {})).toBe(404);
});

tls(
  "a member whose peers' CA is another one neither leads nor follows, and says why",
  async (at) => {
    at.start(0, ["--peer-ca", at.made.ca]);
    at.start(1, ["--peer-ca", at.made.ca]);
    const other = makeCertificates([]);
    try {
      const said = at.start(2, ["--peer-ca", other.ca]);
      await eventually("its warning", async () => said.text.includes("certificate"));
      expect(await at.ask(2, "/health")).toBeNull();
    } finally {
      rmSync(other.folder, { recursive: true, force: true });
    }
  },
);

async function follow(stream: ReadableStream<Uint8Array>, said: { text: string }): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) said.text += decoder.decode(chunk, { stream: true });
}
