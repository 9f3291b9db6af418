/** The event stream: encoding, sharing, limits, cleaning up. Time is the test's own. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Clock, Timer } from "../../src/replica/ports.ts";
import type { Regions } from "../../views/elements.tsx";
import { LivePages } from "../../src/dashboard/live.ts";
import { SharedReading } from "../../src/dashboard/shared-reading.ts";
import { HEARTBEAT, STREAM_BUFFER_BYTES, encodeMessage } from "../../src/dashboard/sse.ts";
import { fakeTask } from "./fake-queue.ts";
import { dashboard, silentLog } from "./fixture.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

class ManualClock implements Clock {
  #now = 0;
  #timers: { at: number; run: () => void }[] = [];
  get waiting(): number {
    return this.#timers.length;
  }
  monotonic(): number {
    return this.#now;
  }
  wall(): number {
    return this.#now;
  }
  after(delay: number, run: () => void): Timer {
    const timer = { at: this.#now + delay, run };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((one) => one !== timer);
      },
    };
  }
  soon(run: () => void): void {
    this.after(0, run);
  }
  /** Runs what is due, in order, letting promises settle in between. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const due = this.#timers
        .filter((timer) => timer.at <= end)
        .toSorted((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#now = Math.max(this.#now, due.at);
      due.run();
    }
    this.#now = end;
    await settle();
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

class Reader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly chunks: string[] = [];
  ended = false;
  constructor(body: ReadableStream<Uint8Array> | null) {
    if (body === null) throw new Error("no stream");
    this.#reader = body.getReader();
    void this.#run();
  }
  async #run(): Promise<void> {
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done) break;
      this.chunks.push(new TextDecoder().decode(value));
    }
    this.ended = true;
  }
  messages(): string[] {
    return this.chunks.filter((chunk) => chunk !== HEARTBEAT);
  }
  cancel(): Promise<void> {
    return this.#reader.cancel();
  }
}

describe("encoding", () => {
  /** The decoder of the specification, as far as unnamed messages need it. */
  const decode = (text: string) =>
    text
      .split("\n")
      .filter((line) => line.startsWith("data: "))
      .map((line) => line.slice("data: ".length))
      .join("\n");

  test("keeps every line, whatever breaks them", () => {
    expect(encodeMessage("<p>a</p>\n<p>b</p>\r\nc\rd")).toBe(
      "data: <p>a</p>\ndata: <p>b</p>\ndata: c\ndata: d\n\n",
    );
    expect(decode(encodeMessage("a\n\nb"))).toBe("a\n\nb");
  });

  test("nothing in a message can end it or begin a field", () => {
    const text = encodeMessage("x\n\nevent: evil\nid: 9\n: c");
    expect(text.slice(0, -2)).not.toContain("\n\n");
    for (const line of text.trimEnd().split("\n")) expect(line.startsWith("data: ")).toBe(true);
  });
});

describe("live pages", () => {
  function pages(streamsMax?: number) {
    const clock = new ManualClock();
    const live = new LivePages(clock, silentLog, streamsMax);
    const state = { renders: 0, regions: { a: "<i>1</i>", b: "<i>same</i>" } as Regions };
    const render = async () => {
      state.renders += 1;
      return state.regions;
    };
    return { clock, live, state, render };
  }

  test("a client gets the whole state first and then only what changed", async () => {
    const { clock, live, state, render } = pages();
    const reader = new Reader(live.open("v", render));
    await clock.pass(1);
    expect(reader.messages()).toHaveLength(1);
    expect(reader.messages()[0]).toContain('hx-target="#a"');
    expect(reader.messages()[0]).toContain('hx-target="#b"');
    state.regions = { ...state.regions, a: "<i>2</i>" };
    live.changed();
    await clock.pass(600);
    expect(reader.messages()).toHaveLength(2);
    expect(reader.messages()[1]).toContain("<i>2</i>");
    expect(reader.messages()[1]).not.toContain('hx-target="#b"');
    live.stop();
  });

  test("a thousand changes are at most two messages a second, and the last one arrives", async () => {
    const { clock, live, state, render } = pages();
    const reader = new Reader(live.open("v", render));
    await clock.pass(1);
    for (let change = 1; change <= 1_000; change += 1) {
      state.regions = { a: `<i>${change}</i>` };
      live.changed();
      await clock.pass(2);
    }
    await clock.pass(600);
    expect(reader.messages().length).toBeLessThanOrEqual(6);
    expect(reader.messages().at(-1)).toContain("<i>1000</i>");
    live.stop();
  });

  test("who sees the same shares one rendering", async () => {
    const { clock, live, state, render } = pages();
    const readers = Array.from({ length: 20 }, () => new Reader(live.open("v", render)));
    await clock.pass(600);
    const before = state.renders;
    state.regions = { a: "<i>9</i>" };
    live.changed();
    await clock.pass(600);
    expect(state.renders - before).toBe(1);
    expect(live.channels).toBe(1);
    for (const reader of readers) expect(reader.messages().at(-1)).toContain("<i>9</i>");
    live.stop();
  });

  test("a quiet stream is refreshed and kept alive by comments", async () => {
    const { clock, live, state, render } = pages();
    const reader = new Reader(live.open("v", render));
    await clock.pass(10_000);
    expect(state.renders).toBeGreaterThanOrEqual(4);
    expect(reader.messages()).toHaveLength(1);
    expect(reader.chunks.filter((chunk) => chunk === HEARTBEAT).length).toBeGreaterThanOrEqual(2);
    live.stop();
  });

  test("when the last client goes, nothing is left: no channel, no timer", async () => {
    const { clock, live, render } = pages();
    const first = new Reader(live.open("v", render));
    const second = new Reader(live.open("w", render));
    await clock.pass(600);
    expect(clock.waiting).toBeGreaterThan(0);
    await first.cancel();
    await second.cancel();
    await clock.pass(600);
    expect([live.streams, live.channels, clock.waiting]).toEqual([0, 0, 0]);
  });

  test("a client that does not read misses messages, then catches up with the whole state", async () => {
    const { clock, live, state, render } = pages();
    state.regions = { a: `<i>${"x".repeat(STREAM_BUFFER_BYTES)}</i>`, b: "<i>old</i>" };
    const body = live.open("v", render);
    await clock.pass(1);
    state.regions = { a: "<i>small</i>", b: "<i>old</i>" };
    live.changed();
    await clock.pass(600);
    const reader = new Reader(body);
    await clock.pass(3_000);
    const last = reader.messages().at(-1) ?? "";
    expect(last).toContain("<i>small</i>");
    expect(last).toContain("<i>old</i>");
    live.stop();
  });

  test("a client that never reads is closed", async () => {
    const { clock, live, state, render } = pages();
    state.regions = { a: `<i>${"x".repeat(STREAM_BUFFER_BYTES)}</i>` };
    live.open("v", render);
    await clock.pass(1);
    for (let second = 0; second < 30 && live.streams > 0; second += 1) {
      state.regions = { a: `<i>${second}</i>` };
      live.changed();
      await clock.pass(1_000);
    }
    expect([live.streams, live.channels]).toEqual([0, 0]);
  });

  test("a rendering that fails leaves the clients as they are and is tried again", async () => {
    const { clock, live, state, render } = pages();
    let fails = true;
    const reader = new Reader(
      live.open("v", async () => {
        if (fails) throw new Error("no state");
        return render();
      }),
    );
    await clock.pass(3_000);
    expect(reader.messages()).toHaveLength(0);
    fails = false;
    await clock.pass(3_000);
    expect(reader.messages()).toHaveLength(1);
    expect(state.renders).toBeGreaterThan(0);
    live.stop();
  });

  test("takes no more streams than its limit, and takes one again when one ends", async () => {
    const { live, render } = pages(2);
    const readers = [new Reader(live.open("v", render)), new Reader(live.open("w", render))];
    expect(live.open("x", render)).toBeNull();
    await readers[0]?.cancel();
    expect(live.open("x", render)).not.toBeNull();
    live.stop();
    expect(live.open("y", render)).toBeNull();
  });
});

describe("the stream's route", () => {
  test("answers 503 over the limit and 400 for what is no view", async () => {
    const { get } = dashboard({ streamsMax: 1 });
    const first = await get("/dashboard/events?view=overview");
    expect(first.headers.get("content-type")).toContain("text/event-stream");
    const second = await get("/dashboard/events?view=overview");
    expect(second.status).toBe(503);
    expect(second.headers.get("retry-after")).toBe("10");
    await first.body?.cancel();
    const third = await get("/dashboard/events?view=tasks&status=Failed");
    expect(third.status).toBe(200);
    await third.body?.cancel();
    for (const query of ["", "?view=none", "?view=task", "?view=tasks&status=Lost"]) {
      expect((await get(`/dashboard/events${query}`)).status).toBe(400);
    }
  });

  test("ends with the member, and stops watching the queue", async () => {
    const stopping = new AbortController();
    const { get, queue } = dashboard({ stopping: stopping.signal });
    expect(queue.listeners).toBe(1);
    const reader = new Reader((await get("/dashboard/events?view=overview")).body);
    stopping.abort();
    await Bun.sleep(0);
    await settle();
    expect(reader.ended).toBe(true);
    expect(queue.listeners).toBe(0);
  });

  test("tells who looks at a task that it is gone", async () => {
    const { get, queue } = dashboard();
    queue.add(fakeTask({ id: "a" }));
    const reader = new Reader((await get("/dashboard/events?view=task&id=a")).body);
    await Bun.sleep(20);
    expect(reader.messages()).toHaveLength(1);
    queue.tasks.pop();
    queue.notify("a");
    while (reader.messages().length < 2) await Bun.sleep(20);
    expect(reader.messages()[1]).toContain("This task is gone");
    await reader.cancel();
  });
});

describe("a shared reading", () => {
  test("is asked for once while it is fresh and once by all who wait", async () => {
    const clock = new ManualClock();
    let asked = 0;
    const reading = new SharedReading(clock, async () => (asked += 1), 1_000, 1_500);
    expect(await Promise.all([reading.get(), reading.get(), reading.get()])).toEqual([1, 1, 1]);
    expect(await reading.get()).toBe(1);
    await clock.pass(1_001);
    expect(await reading.get()).toBe(2);
  });

  test("is not known when it fails or takes too long, and leaves no timer", async () => {
    const clock = new ManualClock();
    const failing = new SharedReading(clock, () => Promise.reject(new Error("no leader")), 10, 100);
    expect(await failing.get()).toBeNull();
    const hanging = new SharedReading(clock, () => new Promise<never>(() => {}), 10, 100);
    const asked = hanging.get();
    await clock.pass(101);
    expect(await asked).toBeNull();
    expect(clock.waiting).toBe(0);
  });
});
