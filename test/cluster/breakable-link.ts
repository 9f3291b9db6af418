/**
 * A TCP link of limited speed that can be broken: what members dial instead of one of them. It reads no faster than
 * it may pass on, so whoever sends sees what a slow network looks like.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** Of one piece: small enough that a slow link is smooth. */
const PIECE_BYTES = 16 * 1024;

export class BreakableLink {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  /** Passed on towards the target, of all connections together. */
  bytes = 0;
  #freeAt = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** `bytesPerSecond`: towards the target, all connections together; the way back is free. */
  static async listen(target: number, bytesPerSecond: number): Promise<BreakableLink> {
    const server = createServer({ pauseOnConnect: true });
    const link = new BreakableLink(server);
    server.on("connection", (from) => {
      const to = connect(target, "127.0.0.1");
      const pair = [from, to] as const;
      link.#pairs.add(pair);
      const end = (): void => {
        link.#pairs.delete(pair);
        from.destroy();
        to.destroy();
      };
      for (const socket of pair) {
        socket.setNoDelay(true);
        socket.on("error", end).on("close", end);
      }
      to.on("connect", () => {
        void link.#pass(from, to, bytesPerSecond).then(end, end);
        to.pipe(from);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return link;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Every connection ends in the middle of what it carries; new ones are taken. */
  break(): void {
    for (const [from, to] of this.#pairs) {
      from.resetAndDestroy();
      to.resetAndDestroy();
    }
  }

  close(): void {
    this.break();
    this.#server.close();
  }

  async #pass(from: Socket, to: Socket, bytesPerSecond: number): Promise<void> {
    for await (const chunk of from) {
      const bytes = chunk as Buffer;
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        const piece = bytes.subarray(at, at + PIECE_BYTES);
        const now = performance.now();
        this.#freeAt = Math.max(now, this.#freeAt) + (piece.length * 1_000) / bytesPerSecond;
        if (this.#freeAt - now > 2) await Bun.sleep(this.#freeAt - now);
        this.bytes += piece.length;
        if (!to.write(piece)) await new Promise<void>((resolve) => to.once("drain", resolve));
      }
    }
  }
}
