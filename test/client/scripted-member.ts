/** A member that answers what a test says, and keeps what it was asked. */
import { FlotillaClient, type FlotillaClientOptions } from "../../src/client/index.ts";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: unknown;
  readonly text: string;
}

export type Script = (asked: Asked, index: number) => Response | Promise<Response>;

export class ScriptedMember implements AsyncDisposable {
  readonly asked: Asked[] = [];
  readonly #server: ReturnType<typeof Bun.serve>;

  constructor(public script: Script) {
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url);
        const text = await request.text();
        const asked: Asked = {
          method: request.method,
          path: pathname + search,
          headers: request.headers,
          text,
          body: text === "" ? null : (JSON.parse(text) as unknown),
        };
        this.asked.push(asked);
        return this.script(asked, this.asked.length - 1);
      },
    });
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  /** Submitted tasks by request. */
  get submits(): Submitted[][] {
    return this.asked.map(submitted);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

export interface Submitted {
  readonly id: string;
  readonly name: string;
  readonly payload?: unknown;
}

export function submitted({ path, body }: Asked): Submitted[] {
  return path === "/api/tasks" ? [body as Submitted] : (body as { tasks: Submitted[] }).tasks;
}

export function accepted(): Response {
  return Response.json({ items: [] }, { status: 201 });
}

export function problem(
  status: number,
  code: string,
  errors?: readonly { pointer: string; detail: string }[],
  headers: Readonly<Record<string, string>> = {},
): Response {
  const title = "x";
  const body = {
    type: `urn:flotilla:problem:${code}`,
    title,
    status,
    detail: `it is ${code}`,
    code,
  };
  return Response.json(
    { ...body, ...(errors === undefined ? {} : { errors }), request_id: "r1" },
    { status, headers: { ...headers, "content-type": "application/problem+json" } },
  );
}

/** A client that is closed at the end of the test. */
export class DisposableClient extends FlotillaClient implements Disposable {
  [Symbol.dispose](): void {
    this.close();
  }
}

export function clientOf(
  members: readonly { readonly url: string }[],
  options: Partial<FlotillaClientOptions> = {},
): DisposableClient {
  return new DisposableClient({ urls: members.map(({ url }) => url), ...options });
}

/** Accepts connections and cuts each one as soon as something was asked. */
export function cuttingMember(): {
  readonly url: string;
  readonly cuts: () => number;
} & Disposable {
  let cuts = 0;
  const listener = Bun.listen({
    port: 0,
    hostname: "127.0.0.1",
    socket: {
      data(socket) {
        cuts += 1;
        socket.terminate();
      },
    },
  });
  return {
    url: `http://127.0.0.1:${listener.port}`,
    cuts: () => cuts,
    [Symbol.dispose]: () => listener.stop(true),
  };
}
