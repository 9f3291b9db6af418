/** Real members as real processes on this machine, for tests and the demo. Everything lies in one temporary folder. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";

/** This checkout of the project. */
export const ROOT = join(import.meta.dir, "..", "..");

/** Longest that a leader is waited for, and that a write is sent again for want of one. */
const LEADER_WAIT_MS = 60_000;

export interface MemberView {
  id: string;
  url: string;
  role: string;
  voter: boolean;
  match_index: number | null;
  lag: number | null;
  reachable: boolean;
  waiting: string | null;
}

export interface ClusterView {
  cluster_id: string | null;
  node_id: string;
  role: string;
  term: number;
  leader_id: string | null;
  commit_index: number;
  applied_index: number;
  members: MemberView[];
}

export interface TaskJson {
  id: string;
  name: string;
  status: string;
  detail: string | null;
  attempt: number;
  retries: number;
  crashes: number;
  payload: unknown;
  result: unknown;
  last_error: { type: string; message: string } | null;
  lease: { worker: string; attempt: number; fence: number } | null;
  version: number;
}

const LISTENING = /^flotilla [a-z0-9-]+ listening on |"msg":"listening"/m;

export class Member {
  process: Subprocess<"ignore", "pipe", "pipe"> | null = null;
  output = "";
  /** Words before `bun`: a tracer, say. */
  wrapper: readonly string[] = [];
  /** Checkout whose build it runs. */
  root = ROOT;

  constructor(
    readonly id: string,
    readonly port: number,
    readonly args: readonly string[],
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Starts the process and waits for its first line, "flotilla ID listening on URL". */
  async start(): Promise<void> {
    const child = Bun.spawn([...this.wrapper, "bun", "run", "src/node.ts", ...this.args], {
      cwd: this.root,
      env: { ...process.env, NO_COLOR: "1" },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.process = child;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // Not what an earlier process of this member said.
    let said: string | null = "";
    const follow = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
      const decoder = new TextDecoder();
      for await (const chunk of stream) {
        const text = decoder.decode(chunk, { stream: true });
        this.output = (this.output + text).slice(-200_000);
        if (said === null) continue;
        said += text;
        if (!LISTENING.test(said)) continue;
        said = null;
        resolve();
      }
    };
    void follow(child.stdout);
    void follow(child.stderr);
    void child.exited.then((code) =>
      reject(new Error(`${this.id} ended with ${code}: ${this.output.slice(-2_000)}`)),
    );
    promise.catch(() => undefined);
    await promise;
  }

  async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<number> {
    const child = this.process;
    if (child === null) return 0;
    this.process = null;
    child.kill(signal);
    return child.exited;
  }

  pause(): void {
    this.process?.kill("SIGSTOP");
  }

  resume(): void {
    this.process?.kill("SIGCONT");
  }

  /** Over a connection of its own: one that was idle for long may be closed in the moment in which it is used again. */
  fetch(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`${this.url}${path}`, { keepalive: false, ...init });
  }

  async json<T>(path: string, init?: RequestInit): Promise<T> {
    return (await answered(await this.fetch(path, init), `${init?.method ?? "GET"} ${path}`)) as T;
  }

  /** Sent again, as clients do, while it is refused for want of a leader: a machine that is busy is slow, not wrong. */
  async post<T>(path: string, body: unknown): Promise<T> {
    const deadline = Date.now() + LEADER_WAIT_MS;
    for (;;) {
      const response = await this.fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      if (response.status !== 503 || Date.now() > deadline)
        return (await answered(response, `POST ${path}`)) as T;
      const text = await response.text();
      // Any other one may have been done, or will be refused again.
      if (!/"code":"no-(?:leader|quorum)"/.test(text)) throw new Error(`POST ${path}: 503 ${text}`);
      await Bun.sleep(100);
    }
  }
}

async function answered(response: Response, what: string): Promise<unknown> {
  if (!response.ok) throw new Error(`${what}: ${response.status} ${await response.text()}`);
  return response.json();
}

export interface ClusterOptions {
  readonly size?: number;
  readonly args?: readonly string[];
}

export class RealCluster {
  readonly members: Member[];

  private constructor(
    readonly folder: string,
    members: Member[],
  ) {
    this.members = members;
  }

  static async create({ size = 3, args = [] }: ClusterOptions = {}): Promise<RealCluster> {
    const folder = await mkdtemp(join(tmpdir(), "flotilla-"));
    const ports = freePorts(size);
    const peers = ports.map((port, i) => `n${i + 1}=http://127.0.0.1:${port}`).join(",");
    const members = ports.map((port, i) => {
      const id = `n${i + 1}`;
      const own = ["--id", id, "--port", String(port), "--data", join(folder, id)];
      return new Member(id, port, [...own, ...(size > 1 ? ["--peers", peers] : []), ...args]);
    });
    return new RealCluster(folder, members);
  }

  static async start(options: ClusterOptions = {}): Promise<RealCluster> {
    const cluster = await RealCluster.create(options);
    try {
      await Promise.all(cluster.members.map((member) => member.start()));
      await cluster.leader();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  /** A member that joins through `through`, with a folder of its own; not started yet. */
  add(id: string, through: Member, args: readonly string[] = []): Member {
    const [port = 0] = freePorts(1);
    const own = ["--id", id, "--port", String(port), "--data", join(this.folder, id)];
    const member = new Member(id, port, [...own, "--join", through.url, ...args]);
    this.members.push(member);
    return member;
  }

  /** The same member, from its next start on at another port; `more` flags. Its --peers, if any, stay as they are. */
  move(member: Member, more: readonly string[] = []): Member {
    const [port = 0] = freePorts(1);
    const at = member.args.indexOf("--port") + 1;
    const moved = new Member(member.id, port, [...member.args.with(at, String(port)), ...more]);
    this.members[this.members.indexOf(member)] = moved;
    return moved;
  }

  member(i: number): Member {
    const member = this.members[i];
    if (member === undefined) throw new Error(`no member ${i}`);
    return member;
  }

  /** The member that leads, once one does and the living members agree. */
  async leader(timeoutMs = LEADER_WAIT_MS): Promise<Member> {
    return eventually(
      "a leader",
      async () => {
        for (const member of this.members) {
          if (member.process === null) continue;
          const view = await member.json<ClusterView>("/api/cluster").catch(() => null);
          if (view?.role === "leader") return member;
        }
        return null;
      },
      timeoutMs,
    );
  }

  async followers(): Promise<Member[]> {
    const leader = await this.leader();
    return this.members.filter((member) => member !== leader && member.process !== null);
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill("SIGKILL")));
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Given to somebody in this process: tests that run at the same time must not get the same ones. */
const given = new Set<number>();

/**
 * Below those that the system gives to connections (32,768 and up): one of them could be taken while its member is down. From anywhere in
 * that range, since other processes look for theirs at the same time.
 */
const PORTS = { from: 12_000, count: 20_000 };

/** Ports that were free a moment ago, all different. */
export function freePorts(count: number): number[] {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = PORTS.from + Math.floor(Math.random() * PORTS.count);
    if (given.has(port) || !isFree(port)) continue;
    given.add(port);
    ports.push(port);
  }
  return ports;
}

function isFree(port: number): boolean {
  try {
    void Bun.serve({ port, hostname: "127.0.0.1", fetch: () => new Response() }).stop(true);
    return true;
  } catch {
    return false;
  }
}

/** Asks again until there is an answer: after 20 ms, then ever later, up to 100 ms. @throws when there is none in time. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | null | false>,
  timeoutMs = 20_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (let pauseMs = 20; ; pauseMs = Math.min(pauseMs + 5, 100)) {
    const found = await look();
    if (found !== null && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await Bun.sleep(pauseMs);
  }
}
