/** The API over the fake queue, with a clock that stands where a test puts it. */
import { createApi } from "../../src/api/api.ts";
import type { BackupFile } from "../../src/api/deps.ts";
import type { TokenRecord } from "../../src/api/auth.ts";
import type { GaugeSource } from "../../src/api/metrics.ts";
import type { Clock, Log, Random } from "../../src/replica/ports.ts";
import { FakeMembers } from "./fake-members.ts";
import { FakeQueue } from "./fake-queue.ts";

export const NOW = Date.UTC(2026, 10, 24, 12, 0, 0);

/** A UUIDv7 of the given time; `tail` tells several apart. */
export function uuidAt(ms: number, tail = 1): string {
  const time = ms.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${String(tail).padStart(12, "0")}`;
}

export interface Harness {
  readonly queue: FakeQueue;
  readonly members: FakeMembers;
  readonly app: ReturnType<typeof createApi>["app"];
  readonly logged: { message: string; fields: Readonly<Record<string, unknown>> | undefined }[];
  readonly state: {
    wall: number;
    draining: boolean;
    backup: (signal: AbortSignal) => BackupFile | null;
  };
  /** In-process; the path begins with `/`. */
  readonly call: (method: string, path: string, options?: CallOptions) => Promise<Response>;
}

export interface CallOptions {
  /** Text and bytes as they are, anything else as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export function harness(
  tokens: readonly TokenRecord[] = [],
  gauges: readonly GaugeSource[] = [],
): Harness {
  const state: Harness["state"] = { wall: NOW, draining: false, backup: () => null };
  const queue = new FakeQueue(() => state.wall);
  const members = new FakeMembers(queue);
  const logged: Harness["logged"] = [];
  const record = (message: string, fields?: Readonly<Record<string, unknown>>): void => {
    logged.push({ message, fields });
  };
  const log: Log = { debug: record, info: record, warn: record, error: record };
  const clock: Clock = {
    monotonic: () => performance.now(),
    wall: () => state.wall,
    after: (delay, run) => {
      const timer = setTimeout(run, delay);
      return { cancel: () => clearTimeout(timer) };
    },
    soon: (run) => void setImmediate(run),
  };
  let minted = 0;
  const random: Random = {
    float: () => 0.5,
    uint32: () => 7,
    uuid: (now) => uuidAt(now, ++minted),
    hex: (bytes) => (++minted).toString(16).padStart(bytes * 2, "0"),
  };
  const { app, shed } = createApi(
    {
      queue,
      members,
      nodeId: "n1",
      clusterId: () => "c1",
      advertise: "http://flotilla.example:3000",
      tokens,
      clock,
      random,
      log,
      version: "9.9.9",
      draining: () => state.draining,
      backup: async (signal) => state.backup(signal),
    },
    gauges,
  );
  return {
    queue,
    members,
    app,
    logged,
    state,
    call: async (method, path, { body, headers } = {}) => {
      const raw = typeof body === "string" || ArrayBuffer.isView(body);
      const request = new Request(`http://localhost:3000${path}`, {
        method,
        headers: {
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        ...(body === undefined
          ? {}
          : {
              body: raw
                ? new Blob([body as string | Uint8Array<ArrayBuffer>])
                : JSON.stringify(body),
            }),
      });
      return shed(request) ?? app.handle(request);
    },
  };
}

export interface ProblemBody {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: string;
  readonly errors?: readonly { readonly pointer: string; readonly detail: string }[];
  readonly request_id: string;
}

/** The problem in `response`, after checking that it is one in every respect that all share. */
export async function problem(response: Response): Promise<ProblemBody> {
  const body = (await response.json()) as ProblemBody;
  const type = response.headers.get("content-type");
  if (type !== "application/problem+json") throw new Error(`not a problem: ${type}`);
  if (body.status !== response.status) throw new Error(`status ${body.status} in the body`);
  if (body.request_id !== response.headers.get("x-request-id") || body.request_id === "") {
    throw new Error(`request id ${body.request_id}`);
  }
  if (body.type !== `urn:flotilla:problem:${body.code}`) throw new Error(`type ${body.type}`);
  if (body.title === "" || body.detail === "") throw new Error("a problem says nothing");
  return body;
}

export function pointers(body: ProblemBody): string[] {
  return (body.errors ?? []).map((error) => error.pointer);
}
