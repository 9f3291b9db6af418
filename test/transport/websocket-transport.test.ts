import { afterEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import type { PeerFrame, PeerHello } from "../../src/replica/ports.ts";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import { MAX_FRAME_BYTES } from "../../src/transport/codec.ts";
import { prove } from "../../src/transport/handshake.ts";
import { PROTOCOL, type ProtocolRange } from "../../src/transport/protocol-version.ts";
import { Member, type MemberOptions, SECRET, until } from "./harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const started: { stop(): unknown }[] = [];

function member(id: string, options: MemberOptions = {}): Member {
  const made = new Member(id, options);
  started.push(made);
  return made;
}

afterEach(async () => {
  await Promise.all(started.splice(0).map((thing) => thing.stop()));
});

const call = (id: number, body: unknown = null): PeerFrame => ({
  kind: "call",
  id,
  method: "test",
  body,
});

const appendOf = (size: number): PeerFrame => ({
  kind: "raft",
  message: {
    from: asNodeId("a"),
    to: asNodeId("b"),
    term: asTerm(1),
    type: "append",
    prevIndex: asIndex(0),
    prevTerm: asTerm(0),
    commit: asIndex(0),
    entries: [
      { term: asTerm(1), index: asIndex(1), kind: "command", data: new Uint8Array(size).fill(7) },
    ],
  },
});

/** A peer that speaks by hand: says what it is told to, and records what it hears. */
class Stranger {
  readonly heard: string[] = [];
  readonly socket: WebSocket;
  closed: number | null = null;

  constructor(url: string) {
    this.socket = new WebSocket(`${url.replace("http", "ws")}/raft`);
    this.socket.addEventListener("message", (event: MessageEvent<unknown>) => {
      if (typeof event.data === "string") this.heard.push(event.data);
    });
    this.socket.addEventListener("close", (event) => {
      this.closed = event.code;
    });
    started.push({ stop: () => this.socket.close() });
  }

  async say(message: unknown): Promise<void> {
    await until(
      "the socket opens",
      () => this.socket.readyState === WebSocket.OPEN || this.closed !== null,
    );
    if (this.closed === null) this.socket.send(JSON.stringify(message));
  }

  /** Goes through the handshake with the given hello and secret; the welcome is not checked. */
  async greet(hello: PeerHello, to: string, secret: string | null = SECRET): Promise<void> {
    const nonce = "ab".repeat(32);
    const from = hello.id;
    await this.say({
      type: "open",
      speaks: PROTOCOL,
      from,
      to,
      nonce,
      secret: secret !== null,
    });
    await until("an answer", () => this.heard.length > 0 || this.closed !== null);
    const challenge = JSON.parse(this.heard[0] ?? "{}") as { readonly nonce?: string };
    const text = JSON.stringify(hello);
    const transcript = {
      version: PROTOCOL.newest,
      dialler: from,
      accepter: asNodeId(to),
      diallerNonce: nonce,
      accepterNonce: challenge.nonce ?? "",
      diallerHello: text,
      accepterHello: "",
    };
    await this.say({
      type: "proof",
      hello: text,
      proof: prove(secret, "dialler", transcript, hello.clusterId),
    });
  }

  get isWelcome(): boolean {
    return this.heard.some((text) => text.includes('"welcome"'));
  }
}

describe("two members", () => {
  test("connect both ways, know each other's hello, and exchange frames in order", async () => {
    const a = member("a", { clusterId: "c1" });
    const b = member("b", { boot: 3 });
    a.dials(b);
    b.dials(a);
    await until(
      "both connected",
      () => a.transport.isConnected(b.id) && b.transport.isConnected(a.id),
    );
    expect(a.connects).toEqual([{ peer: b.id, hello: b.hello }]);
    expect(b.connects).toEqual([{ peer: a.id, hello: a.hello }]);
    for (let at = 0; at < 500; at++) expect(a.transport.send(b.id, call(at, { at }))).toBe(true);
    await until("all frames", () => b.frames.length === 500);
    expect(b.frames.map(({ frame }) => (frame.kind === "call" ? frame.id : -1))).toEqual(
      Array.from({ length: 500 }, (_, at) => at),
    );
    expect(b.frames.every(({ from }) => from === a.id)).toBe(true);
    expect(a.frames).toEqual([]);
    expect(a.warnings).toEqual([]);
  });

  test("carry entries of megabytes unharmed", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    const sent = appendOf(5_000_000);
    expect(a.transport.send(b.id, sent)).toBe(true);
    await until("the frame", () => b.frames.length === 1);
    expect(b.frames[0]?.frame).toEqual(sent);
  });

  test("measure the round trip", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    expect(a.transport.roundTripMs(b.id)).toBeNull();
    await until("a pong", () => a.transport.roundTripMs(b.id) !== null);
    expect(a.transport.roundTripMs(b.id)).toBeGreaterThanOrEqual(0);
  });

  test("without a secret on both sides connect as well", async () => {
    const a = member("a", { secret: null });
    const b = member("b", { secret: null });
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
  });

  test("never send on a connection that they only accepted", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    expect(b.transport.isConnected(a.id)).toBe(false);
    expect(b.transport.send(a.id, call(1))).toBe(false);
    expect(a.transport.send(asNodeId("nobody"), call(1))).toBe(false);
  });

  test("do not dial themselves", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(a, b);
    await until("connected", () => a.transport.isConnected(b.id));
    expect(a.transport.isConnected(a.id)).toBe(false);
    expect(a.warnings).toEqual([]);
  });
});

describe("a handshake is refused", () => {
  test("when the secrets differ, and both logs say so", async () => {
    const a = member("a");
    const b = member("b", { secret: "another secret altogether" });
    a.dials(b);
    await until("the refusal", () => a.disconnects.length > 0 && b.warnings.length > 0);
    expect(a.reasons()[0]).toBe("rejected");
    expect(a.warnings.join()).toContain("did not prove the secret");
    expect(b.warnings.join()).toContain("did not prove the secret");
    expect(a.connects).toEqual([]);
    expect(a.warnings.join() + b.warnings.join()).not.toContain(SECRET);
  });

  test.each([
    ["dialler", SECRET, null],
    ["accepter", null, SECRET],
  ])("when only the %s has a secret", async (_name, ours, theirs) => {
    const a = member("a", { secret: ours });
    const b = member("b", { secret: theirs });
    a.dials(b);
    await until("the refusal", () => a.disconnects.length > 0 && a.warnings.length > 0);
    expect(a.reasons()[0]).toBe("rejected");
    expect(a.warnings.join()).toContain("has none");
    expect(b.warnings.join()).toContain("has none");
    expect(a.connects).toEqual([]);
  });

  test("by the accepter's judgement, whose sentence reaches the dialler's log", async () => {
    const a = member("a");
    const b = member("b", { admit: (hello) => `${hello.id} is not a member of cluster c1` });
    a.dials(b);
    await until("the refusal", () => a.warnings.length > 0 && a.disconnects.length > 0);
    expect(a.warnings[0]).toContain("a is not a member of cluster c1");
    expect(b.warnings[0]).toContain("a is not a member of cluster c1");
    expect(a.reasons()[0]).toBe("rejected");
  });

  test("by the dialler's judgement, whose sentence reaches the accepter's log", async () => {
    const a = member("a", { admit: (hello) => `${hello.id} has another data folder` });
    const b = member("b");
    a.dials(b);
    await until("the refusal", () => b.warnings.length > 0 && a.disconnects.length > 0);
    expect(b.warnings[0]).toContain("b has another data folder");
    expect(a.reasons()[0]).toBe("rejected");
    expect(a.connects).toEqual([]);
    expect(a.transport.isConnected(b.id)).toBe(false);
  });

  test("once a judgement changes, the next dial goes through", async () => {
    let refusal: string | null = "not yet";
    const a = member("a");
    const b = member("b", { admit: () => refusal });
    a.dials(b);
    await until("a refusal", () => a.disconnects.length > 1);
    refusal = null;
    await until("connected", () => a.transport.isConnected(b.id));
    expect(a.warnings.length).toBe(1);
  });

  test("when another member answers at the address", async () => {
    const a = member("a");
    const b = member("b");
    a.transport.setPeers(new Map([[asNodeId("c"), [b.url]]]));
    await until("the refusal", () => a.disconnects.length > 0);
    expect(a.disconnects[0]).toEqual({ peer: asNodeId("c"), reason: "rejected" });
    expect(a.warnings.join()).toContain("correct its --peers");
  });

  test("when the dialler bears the accepter's own id", async () => {
    const b = member("b");
    const twin = new Stranger(b.url);
    await twin.greet({ ...b.hello, incarnation: "another" }, "b");
    await until("the close", () => twin.closed !== null);
    expect(twin.heard.join()).toContain("own id");
    expect(b.frames).toEqual([]);
  });

  test("when the hello names another member than the one that proved the secret", async () => {
    const b = member("b");
    const liar = new Stranger(b.url);
    const hello: PeerHello = { ...b.hello, id: asNodeId("a") };
    const claimed = { ...hello, toJSON: () => ({ ...hello, id: "c" }) };
    await liar.greet(claimed, "b");
    await until("the close", () => liar.closed !== null);
    expect(liar.closed).toBe(4002);
    expect(liar.isWelcome).toBe(false);
  });

  test.each<[string, (theirs: string) => string]>([
    ["makes a proof up", () => "0".repeat(64)],
    ["has no proof", () => ""],
    ["reflects the dialler's own proof", (theirs) => theirs],
  ])("by the dialler when the accepter %s", async (_name, proofFor) => {
    const a = member("a");
    const impostor = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request, server) => (server.upgrade(request) ? undefined : new Response()),
      websocket: {
        message(socket, text) {
          const heard = JSON.parse(String(text)) as { type: string; proof: string };
          if (heard.type === "open") {
            const nonce = "cd".repeat(32);
            socket.send(
              JSON.stringify({
                type: "challenge",
                version: PROTOCOL.newest,
                from: "b",
                nonce,
                secret: true,
              }),
            );
          } else if (heard.type === "proof") {
            const hello = JSON.stringify({ ...a.hello, id: "b" });
            socket.send(JSON.stringify({ type: "welcome", hello, proof: proofFor(heard.proof) }));
          }
        },
      },
    });
    started.push({ stop: () => impostor.stop(true) });
    a.transport.setPeers(new Map([[asNodeId("b"), [`http://127.0.0.1:${impostor.port}`]]]));
    await until("the refusal", () => a.disconnects.length > 0);
    expect(a.reasons()[0]).toBe("rejected");
    expect(a.warnings.join()).toContain("did not prove the secret");
    expect(a.connects).toEqual([]);
  });

  test("of a version that this member does not speak", async () => {
    const b = member("b");
    const newer = new Stranger(b.url);
    const nonce = "ab".repeat(32);
    const speaks = { oldest: 98, newest: 99 };
    await newer.say({ type: "open", speaks, from: "a", to: "b", nonce, secret: true });
    await until("the close", () => newer.closed !== null);
    expect(newer.closed).toBe(4003);
    expect(newer.heard.join()).toContain("versions 98 to 99");
  });
});

/** Speaks this version, and the one after it. */
const NEXT: ProtocolRange = { oldest: PROTOCOL.oldest, newest: PROTOCOL.newest + 1 };

describe("frames that are sent in one turn", () => {
  const reply = (id: number, body: unknown = null): PeerFrame => ({ kind: "reply", id, body });

  test("share one message of the socket, and arrive in their order", async () => {
    const [a, b] = [member("a"), member("b")];
    a.dials(b);
    await until("they are connected", () => a.connects.length === 1);
    const socket = spyOn(WebSocket.prototype, "send");
    try {
      for (let id = 1; id <= 5; id++) expect(a.transport.send(b.id, reply(id))).toBe(true);
      await until("the frames", () => b.frames.length === 5);
      expect(socket).toHaveBeenCalledTimes(1);
      // A large one is not copied once more; nothing overtakes it, and a flush waits for no end of a turn.
      a.transport.send(b.id, reply(6));
      a.transport.send(b.id, reply(7, "x".repeat(100_000)));
      a.transport.send(b.id, reply(8));
      a.transport.flush();
      expect(socket).toHaveBeenCalledTimes(4);
      await until("the frames", () => b.frames.length === 8);
    } finally {
      socket.mockRestore();
    }
    const ids = b.frames.map(({ frame }) => (frame.kind === "reply" ? frame.id : 0));
    expect(ids).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test("leave before a connection is closed on purpose", async () => {
    const [a, b] = [member("a"), member("b")];
    a.dials(b);
    await until("they are connected", () => a.connects.length === 1);
    a.transport.send(b.id, reply(1));
    void a.transport.close();
    await until("the frame", () => b.frames.length === 1);
  });
});

describe("members of different builds", () => {
  test("speak the newest version that they have in common", async () => {
    const old = member("a");
    const newer = member("b", { protocol: NEXT });
    old.dials(newer);
    newer.dials(old);
    await until("both are connected", () => old.connects.length + newer.connects.length === 2);
    const frame = { kind: "reply", id: 1, body: null } as const;
    expect(old.transport.send(newer.id, frame)).toBe(true);
    expect(newer.transport.send(old.id, frame)).toBe(true);
    await until("the frames", () => old.frames.length + newer.frames.length === 2);
  });

  test("that both know the next version use it", async () => {
    const [a, b] = ["a", "b"].map((id) => member(id, { protocol: NEXT }));
    if (a === undefined || b === undefined) throw new Error("no members");
    a.dials(b);
    await until("they are connected", () => a.connects.length === 1);
    expect(a.transport.send(b.id, { kind: "reply", id: 1, body: null })).toBe(true);
    await until("the frame", () => b.frames.length === 1);
  });

  test.each<[string, ProtocolRange, string]>([
    [
      "too new",
      { oldest: PROTOCOL.newest + 1, newest: PROTOCOL.newest + 2 },
      "start a with a newer build",
    ],
    ["too old", { oldest: 0, newest: PROTOCOL.oldest - 1 }, "start b with a newer build"],
  ])("without one in common are told which is %s", async (_name, protocol, advice) => {
    const a = member("a");
    const b = member("b", { protocol });
    a.dials(b);
    await until("the refusal", () => a.warnings.length > 0 && b.warnings.length > 0);
    expect(a.warnings.join()).toContain(advice);
    expect(b.warnings.join()).toContain(advice);
    expect(a.connects).toEqual([]);
  });
});

describe("before the end of the handshake", () => {
  test("no frame counts", async () => {
    const b = member("b");
    const stranger = new Stranger(b.url);
    await until("open", () => stranger.socket.readyState === WebSocket.OPEN);
    stranger.socket.send(new Uint8Array([1, 6, 0, 0, 0, 0]));
    await until("the close", () => stranger.closed !== null);
    expect(stranger.closed).toBe(4002);
    expect(b.frames).toEqual([]);
  });

  test.each([["nonsense"], ['{"type":"welcome","hello":"{}","proof":""}'], ["{}"]])(
    "%p is answered by a close",
    async (text) => {
      const b = member("b");
      const stranger = new Stranger(b.url);
      await until("open", () => stranger.socket.readyState === WebSocket.OPEN);
      stranger.socket.send(text);
      await until("the close", () => stranger.closed !== null);
      expect(stranger.closed).toBe(4002);
    },
  );

  test("a stranger who merely knocks learns neither a proof nor a hello", async () => {
    const b = member("b");
    const stranger = new Stranger(b.url);
    const nonce = "ab".repeat(32);
    await stranger.say({
      type: "open",
      speaks: PROTOCOL,
      from: "a",
      to: "b",
      nonce,
      secret: true,
    });
    await until("the challenge", () => stranger.heard.length > 0);
    const challenge: unknown = JSON.parse(stranger.heard[0] ?? "");
    expect(Object.keys(challenge as object).sort()).toEqual([
      "from",
      "nonce",
      "secret",
      "type",
      "version",
    ]);
  });
});

describe("an upgrade is refused", () => {
  const headers = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  };

  test("with an Origin, whatever it is", async () => {
    const b = member("b");
    const response = await fetch(`${b.url}/raft`, { headers: { ...headers, origin: b.url } });
    expect(response.status).toBe(403);
  });

  test("by a member that takes no peers, and its dialler hears that it was rejected", async () => {
    const a = member("a");
    const b = member("b", { acceptsPeers: false });
    const response = await fetch(`${b.url}/raft`, { headers });
    expect(response.status).toBe(403);
    expect(await response.text()).toContain("takes no others");
    a.dials(b);
    await until("the refusal", () => a.disconnects.length > 0);
    expect(a.reasons()[0]).toBe("rejected");
  });

  test("by a member that is starting or stopping, which nobody is warned of", async () => {
    const [a, b, c] = [member("a"), member("b"), member("c", { acceptsPeers: false })];
    await b.transport.close();
    expect((await fetch(`${b.url}/raft`, { headers })).status).toBe(503);
    a.dials(b);
    await until("the refusal", () => a.disconnects.length > 0);
    expect([a.reasons()[0], a.warnings]).toEqual(["rejected", []]);
    a.dials(c);
    await until("a warning", () => a.warnings.length > 0);
  });

  test("when it is none", async () => {
    const b = member("b");
    expect((await fetch(`${b.url}/raft`)).status).toBe(426);
  });

  test("by a member that stops", async () => {
    const b = member("b");
    await b.transport.close();
    expect((await fetch(`${b.url}/raft`, { headers })).status).toBe(503);
  });
});

test("strangers that only knock keep no member out: the oldest of them give way", async () => {
  const b = member("b");
  const sockets = Array.from({ length: 300 }, () => new Stranger(b.url));
  await until("all answered", () =>
    sockets.every((s) => s.socket.readyState === WebSocket.OPEN || s.closed !== null),
  );
  const a = member("a");
  a.dials(b);
  await until("connected", () => a.transport.isConnected(b.id));
  const open = sockets.filter((s) => s.socket.readyState === WebSocket.OPEN).length;
  expect(open).toBeLessThanOrEqual(32);
});

describe("frames of a proved member", () => {
  const helloOf = (b: Member, boot: number): PeerHello => ({
    ...b.hello,
    id: asNodeId("a"),
    incarnation: "folder-of-a",
    boot,
  });

  test("that make no sense close the connection and reach nobody", async () => {
    const b = member("b");
    const a = new Stranger(b.url);
    await a.greet(helloOf(b, 1), "b");
    await until("the welcome", () => a.isWelcome);
    a.socket.send(new Uint8Array([1, 2, 3]));
    await until("the close", () => a.closed !== null);
    expect(a.closed).toBe(4002);
    expect(b.frames).toEqual([]);
    expect(b.warnings.join()).toContain("a sent nonsense");
  });

  test("over the limit close the connection", async () => {
    const b = member("b");
    const a = new Stranger(b.url);
    await a.greet(helloOf(b, 1), "b");
    await until("the welcome", () => a.isWelcome);
    a.socket.send(new Uint8Array(MAX_FRAME_BYTES + 1));
    await until("the close", () => a.closed !== null);
    expect(b.frames).toEqual([]);
  });

  test("over the limit are not sent at all, and the connection goes on", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    expect(a.transport.send(b.id, appendOf(MAX_FRAME_BYTES))).toBe(false);
    expect(a.transport.send(b.id, call(1))).toBe(true);
    await until("the next frame", () => b.frames.length === 1);
  });

  test("count on the newest connection only", async () => {
    const b = member("b");
    const older = new Stranger(b.url);
    await older.greet(helloOf(b, 4), "b");
    await until("the welcome", () => older.isWelcome);
    const newer = new Stranger(b.url);
    await newer.greet(helloOf(b, 4), "b");
    await until("the welcome", () => newer.isWelcome);
    await until("the older one closed", () => older.closed !== null);
    expect(older.closed).toBe(4001);
    const third = new Stranger(b.url);
    await third.greet(helloOf(b, 3), "b");
    await until("the older process refused", () => third.closed !== null);
    expect(third.closed).toBe(4001);
    expect(third.isWelcome).toBe(false);
    expect(newer.closed).toBeNull();
  });
});

describe("a connection ends", () => {
  test("and is made again when the peer restarts on its address", async () => {
    const a = member("a");
    let b = new Member("b");
    const port = b.server.port ?? 0;
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    await b.server.stop(true);
    await b.transport.close();
    await until("the loss", () => a.reasons().includes("refused"));
    expect(a.reasons()[0]).toBe("closed-by-peer");
    expect(a.transport.send(b.id, call(1))).toBe(false);
    b = member("b", { port, boot: 2 });
    await until("connected again", () => a.transport.isConnected(b.id));
    expect(a.connects.at(-1)?.hello.boot).toBe(2);
  });

  test("with 'ours' when the peer stops on purpose", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    await b.transport.close();
    await until("the loss", () => a.disconnects.length > 0);
    expect(a.reasons()[0]).toBe("ours");
  });

  test("with 'ours' at the side that stops, once, after which nothing is heard", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    await a.transport.close();
    await until("the report", () => a.disconnects.length > 0);
    await Bun.sleep(50);
    expect(a.reasons()).toEqual(["ours"]);
  });

  test("when a peer is no longer to be dialled", async () => {
    const a = member("a");
    const b = member("b");
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    a.transport.setPeers(new Map());
    expect(a.transport.isConnected(b.id)).toBe(false);
    await until("the report", () => a.disconnects.length > 0);
    expect(a.reasons()).toEqual(["ours"]);
    a.dials(b);
    await until("connected again", () => a.transport.isConnected(b.id));
  });

  test("and goes to the new address when it changes", async () => {
    const a = member("a");
    const b = member("b");
    const moved = member("b", { boot: 2 });
    a.dials(b);
    await until("connected", () => a.transport.isConnected(b.id));
    a.dials(moved);
    await until("connected to the other", () => a.connects.length === 2);
    expect(a.connects[1]?.hello.boot).toBe(2);
  });

  test("and goes to where it told to be, while the first of its addresses goes on not to answer", async () => {
    const a = member("a");
    const gone = new Member("b");
    const old = gone.url;
    a.dials(gone);
    await until("connected", () => a.transport.isConnected(gone.id));
    await gone.stop();
    await until("two tries", () => a.disconnects.length > 2);
    const b = member("b", { boot: 2 });
    a.transport.setPeers(new Map([[b.id, [old, b.url]]]));
    await until("connected elsewhere", () => a.transport.isConnected(b.id));
    // Another address that is known of it is no reason to leave where it is.
    a.transport.setPeers(new Map([[b.id, [old, "http://127.0.0.1:1", b.url]]]));
    expect(a.transport.isConnected(b.id)).toBe(true);
    await b.transport.close();
    await until("the loss", () => !a.transport.isConnected(b.id));
  });

  test("and who is dialled at several addresses is found at any of them, whoever answers at the others", async () => {
    const a = member("a");
    const other = member("c");
    const b = member("b");
    const closed = new Member("d");
    await closed.stop();
    a.transport.setPeers(new Map([[b.id, [closed.url, other.url, b.url]]]));
    await until("connected", () => a.transport.isConnected(b.id));
    // None of them says that its process is gone: it never was there.
    expect(a.reasons()).not.toContain("refused");
    expect(a.connects.map(({ peer }) => peer)).toEqual([b.id]);
  });

  test("with 'refused' where nobody listens", async () => {
    const a = member("a");
    const b = new Member("b");
    await b.stop();
    a.dials(b);
    await until("two tries", () => a.disconnects.length >= 2);
    expect(new Set(a.reasons())).toEqual(new Set(["refused"]));
  });

  test("with a peer that accepts and closes at once is not redialled without a pause", async () => {
    const a = member("a");
    const b = member("b", { admit: () => "never" });
    a.dials(b);
    await Bun.sleep(600);
    expect(a.disconnects.length).toBeGreaterThan(1);
    expect(a.disconnects.length).toBeLessThan(15);
  });
});
