/** Peers that die, stop or never speak. What these tests do is wait: all at once, each with members of its own. */
import { expect, setDefaultTimeout, test } from "bun:test";
import type { PeerFrame } from "../../src/replica/ports.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import { Member, until } from "./harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const B = asNodeId("b");

const eightMegabytes: PeerFrame = {
  kind: "raft",
  message: {
    from: asNodeId("a"),
    to: B,
    term: asTerm(1),
    type: "append",
    prevIndex: asIndex(0),
    prevTerm: asTerm(0),
    commit: asIndex(0),
    entries: [
      { term: asTerm(1), index: asIndex(1), kind: "command", data: new Uint8Array(8_000_000) },
    ],
  },
};

/** Member "a", connected to a "b" in a process of its own. */
async function pair(): Promise<{ a: Member; b: Bun.Subprocess } & AsyncDisposable> {
  const b = Bun.spawn(["bun", `${import.meta.dir}/peer-process.ts`], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const a = new Member("a");
  const dispose = async (): Promise<void> => {
    b.kill("SIGKILL");
    await Promise.all([b.exited, a.stop()]);
  };
  const { value } = await b.stdout.getReader().read();
  a.transport.setPeers(new Map([[B, [new TextDecoder().decode(value).trim()]]]));
  await until("connected", () => a.transport.isConnected(B));
  return { a, b, [Symbol.asyncDispose]: dispose };
}

test.concurrent("one that is killed is 'closed-by-peer', and then 'refused'", async () => {
  await using made = await pair();
  const { a, b } = made;
  b.kill("SIGKILL");
  // A system that takes the process apart may still answer one dial at its port.
  await until("both reports", () => a.reasons().includes("refused"));
  expect(a.reasons()[0]).toBe("closed-by-peer");
});

test.concurrent(
  "one that is stopped in its tracks is given up with 'timeout', and found again",
  async () => {
    await using made = await pair();
    const { a, b } = made;
    b.kill("SIGSTOP");
    await until("the send limit", () => !a.transport.send(B, eightMegabytes), 10_000);
    await until("the end of patience", () => a.disconnects.length > 0, 10_000);
    expect(a.reasons()[0]).toBe("timeout");
    b.kill("SIGCONT");
    await until("connected again", () => a.transport.isConnected(B), 10_000);
  },
);

test.concurrent(
  "silence is not waited out: not of TCP, not of an open WebSocket, not of a dialler",
  async () => {
    const [tcp, mute] = [asNodeId("tcp"), asNodeId("mute")];
    const a = new Member("a");
    const silentTcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const muteServer = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request, server) => (server.upgrade(request) ? undefined : new Response()),
      websocket: { message() {} },
    });
    const dialler = new WebSocket(`${a.url.replace("http", "ws")}/raft`);
    try {
      a.transport.setPeers(
        new Map([
          [tcp, [`http://127.0.0.1:${silentTcp.port}`]],
          [mute, [`http://127.0.0.1:${muteServer.port}`]],
        ]),
      );
      const closed: number[] = [];
      dialler.addEventListener("close", ({ code }) => closed.push(code));
      await until("the end of patience", () => a.disconnects.length > 1, 10_000);
      await until("the close", () => closed.length > 0, 10_000);
      expect(a.disconnects.find(({ peer }) => peer === tcp)?.reason).toBe("timeout");
      expect(a.disconnects.find(({ peer }) => peer === mute)?.reason).toBe("timeout");
      expect(closed).toEqual([4005]);
    } finally {
      dialler.close();
      silentTcp.stop(true);
      await Promise.all([muteServer.stop(true), a.stop()]);
    }
  },
);
