/**
 * Links between members that are slower than this machine's: a process of its own that passes TCP on, in order, each byte
 * a fixed time later. One listener for each (member, peer) pair, since each member dials its own view of its peers.
 *
 * Started by links.ts with IPC: gets `{routes, delayMs}`, answers `{ports}`.
 */
import type { Socket } from "bun";

export interface ProxyOrder {
  /** Ports of this machine that connections are passed on to, one listener each. */
  readonly routes: readonly number[];
  /** In each direction. */
  readonly delayMs: number;
}

export interface ProxyReady {
  readonly ports: readonly number[];
}

/** Bytes on their way in one direction. */
class Delayed {
  readonly #late: { readonly at: number; readonly bytes: Uint8Array | null }[] = [];
  #to: Socket<unknown> | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #unsent: Uint8Array | null = null;

  constructor(readonly delayMs: number) {}

  /** Where they go to, once it is known. */
  connect(to: Socket<unknown>): void {
    this.#to = to;
    this.#arm();
  }

  /** null: the end. */
  push(bytes: Uint8Array | null): void {
    this.#late.push({ at: performance.now() + this.delayMs, bytes });
    this.#arm();
  }

  drained(): void {
    const left = this.#unsent;
    this.#unsent = null;
    if (left !== null) this.#write(left);
    if (this.#unsent === null) this.#arm();
  }

  #arm(): void {
    const [first] = this.#late;
    if (this.#timer !== null || this.#to === null || first === undefined || this.#unsent !== null)
      return;
    const waitMs = first.at - performance.now();
    // The timer's grain is a millisecond: what is nearer is waited for by turns of the loop.
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        this.#deliver();
      },
      Math.max(0, waitMs - 1),
    );
  }

  #deliver(): void {
    const now = performance.now();
    for (let next = this.#late[0]; next !== undefined; next = this.#late[0]) {
      if (next.at > now) {
        if (next.at - now < 1) {
          setImmediate(() => this.#deliver());
          return;
        }
        break;
      }
      this.#late.shift();
      if (next.bytes === null) {
        this.#to?.end();
        return;
      }
      this.#write(next.bytes);
      if (this.#unsent !== null) return;
    }
    this.#arm();
  }

  #write(bytes: Uint8Array): void {
    const sent = Math.max(0, this.#to?.write(bytes) ?? 0);
    if (sent < bytes.length) this.#unsent = bytes.subarray(sent);
  }
}

interface Pair {
  readonly there: Delayed;
  readonly back: Delayed;
}

function listen(target: number, delayMs: number): number {
  return Bun.listen<Pair>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open(client) {
        const pair = { there: new Delayed(delayMs), back: new Delayed(delayMs) };
        client.data = pair;
        pair.back.connect(client);
        Bun.connect({
          hostname: "127.0.0.1",
          port: target,
          socket: {
            open: (server) => pair.there.connect(server),
            data: (_, chunk) => pair.back.push(Buffer.from(chunk)),
            drain: () => pair.there.drained(),
            close: () => pair.back.push(null),
          },
        }).catch(() => client.end());
      },
      data: (client, chunk) => client.data.there.push(Buffer.from(chunk)),
      drain: (client) => client.data.back.drained(),
      close: (client) => client.data.there.push(null),
    },
  }).port;
}

process.on("message", ({ routes, delayMs }: ProxyOrder) => {
  const ready: ProxyReady = { ports: routes.map((port) => listen(port, delayMs)) };
  process.send?.(ready);
});
process.on("disconnect", () => process.exit(0));
