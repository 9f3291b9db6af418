/**
 * Live pages: one channel per view that somebody looks at, rendered once per change and sent to all who
 * see the same. A message carries the parts that changed; a client that fell behind gets all of them
 * with its next one, so that dropping a message loses nothing.
 */
import type { Clock, Log, Timer } from "../replica/ports.ts";
import { Partials, markup } from "../../views/elements.tsx";
import type { Regions } from "../../views/elements.tsx";
import { EventStream, HEARTBEAT, encodeMessage } from "./sse.ts";

/** Streams of one member. Each costs a socket and at most its buffer; browsers open one per tab. */
const STREAMS_MAX = 200;
/** At most two messages a second per client. */
const RENDER_INTERVAL_MS = 500;
/** With many different views, each is rendered less often: about this much of it per view. */
const RENDER_SPACING_MS = 10;
/** Ages and the state of the members change without anything being applied. */
const REFRESH_MS = 2_000;
const HEARTBEAT_MS = 4_000;
/** A client that read nothing for so long is closed; its browser comes back by itself. */
const BEHIND_MAX_MS = 15_000;

interface Subscriber {
  readonly stream: EventStream;
  /** Needs the whole state with its next message. */
  behind: boolean;
  lastSentMs: number;
}

interface Channel {
  readonly key: string;
  readonly render: () => Promise<Regions>;
  readonly subscribers: Set<Subscriber>;
  regions: ReadonlyMap<string, string>;
  dirty: boolean;
  rendering: boolean;
  renderedMs: number;
  timer: Timer | null;
}

export class LivePages {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #streamsMax: number;
  readonly #channels = new Map<string, Channel>();
  #streams = 0;
  #refresh: Timer | null = null;
  #stopped = false;

  constructor(clock: Clock, log: Log, streamsMax = STREAMS_MAX) {
    this.#clock = clock;
    this.#log = log;
    this.#streamsMax = streamsMax;
  }

  get streams(): number {
    return this.#streams;
  }

  get channels(): number {
    return this.#channels.size;
  }

  /** Views with equal `key` share what `render` returns. Null: no more streams, or stopping. */
  open(key: string, render: () => Promise<Regions>): ReadableStream<Uint8Array> | null {
    if (this.#stopped || this.#streams >= this.#streamsMax) return null;
    const channel = this.#channels.get(key) ?? this.#newChannel(key, render);
    const subscriber: Subscriber = {
      stream: new EventStream(() => this.#leave(channel, subscriber)),
      behind: true,
      lastSentMs: this.#clock.monotonic(),
    };
    channel.subscribers.add(subscriber);
    this.#streams += 1;
    this.#refresh ??= this.#clock.after(REFRESH_MS, () => this.#tick());
    channel.dirty = true;
    this.#schedule(channel, true);
    return subscriber.stream.body;
  }

  /** Something was applied: every view may have changed. */
  changed(): void {
    for (const channel of this.#channels.values()) {
      channel.dirty = true;
      this.#schedule(channel, false);
    }
  }

  /** Ends every stream, for a shutdown. */
  stop(): void {
    this.#stopped = true;
    for (const channel of this.#channels.values()) {
      for (const subscriber of channel.subscribers) subscriber.stream.close();
    }
  }

  #newChannel(key: string, render: () => Promise<Regions>): Channel {
    const channel: Channel = {
      key,
      render,
      subscribers: new Set(),
      regions: new Map(),
      dirty: true,
      rendering: false,
      renderedMs: Number.NEGATIVE_INFINITY,
      timer: null,
    };
    this.#channels.set(key, channel);
    return channel;
  }

  #leave(channel: Channel, subscriber: Subscriber): void {
    if (!channel.subscribers.delete(subscriber)) return;
    this.#streams -= 1;
    if (channel.subscribers.size > 0) return;
    channel.timer?.cancel();
    channel.timer = null;
    this.#channels.delete(channel.key);
    if (this.#channels.size > 0) return;
    this.#refresh?.cancel();
    this.#refresh = null;
  }

  #tick(): void {
    this.#refresh = this.#clock.after(REFRESH_MS, () => this.#tick());
    const now = this.#clock.monotonic();
    for (const channel of this.#channels.values()) {
      for (const subscriber of channel.subscribers) {
        if (now - subscriber.lastSentMs < HEARTBEAT_MS) continue;
        this.#deliver(subscriber, HEARTBEAT, now);
      }
    }
    this.changed();
  }

  #schedule(channel: Channel, newcomer: boolean): void {
    if (channel.rendering) return;
    const interval = Math.max(RENDER_INTERVAL_MS, this.#channels.size * RENDER_SPACING_MS);
    const due = channel.renderedMs + interval - this.#clock.monotonic();
    if (newcomer) {
      channel.timer?.cancel();
      channel.timer = null;
      void this.#render(channel);
      return;
    }
    if (channel.timer !== null) return;
    channel.timer = this.#clock.after(Math.max(0, due), () => {
      channel.timer = null;
      void this.#render(channel);
    });
  }

  async #render(channel: Channel): Promise<void> {
    channel.rendering = true;
    channel.dirty = false;
    channel.renderedMs = this.#clock.monotonic();
    try {
      const regions = await channel.render();
      this.#publish(channel, regions);
    } catch (error) {
      // The next change or refresh tries again; the clients keep what they have.
      this.#log.warn("A live view could not be rendered", { view: channel.key, error });
    } finally {
      channel.rendering = false;
    }
    const waiting = [...channel.subscribers].some((subscriber) => subscriber.behind);
    if (channel.subscribers.size > 0 && (channel.dirty || waiting)) this.#schedule(channel, false);
  }

  #publish(channel: Channel, regions: Regions): void {
    const texts = new Map<string, string>();
    for (const [id, element] of Object.entries(regions)) texts.set(id, markup(element));
    const changed = [...texts].filter(([id, text]) => channel.regions.get(id) !== text);
    channel.regions = texts;
    const partial =
      changed.length > 0
        ? messageOf(
            regions,
            changed.map(([id]) => id),
          )
        : null;
    let whole: string | null = null;
    const now = this.#clock.monotonic();
    for (const subscriber of channel.subscribers) {
      if (subscriber.behind) {
        whole ??= messageOf(regions, [...texts.keys()]);
        this.#deliver(subscriber, whole, now);
      } else if (partial !== null) {
        this.#deliver(subscriber, partial, now);
      }
    }
  }

  #deliver(subscriber: Subscriber, text: string, now: number): void {
    const result = subscriber.stream.send(text);
    switch (result) {
      case "sent":
        if (text !== HEARTBEAT) subscriber.behind = false;
        subscriber.lastSentMs = now;
        return;
      case "behind":
        subscriber.behind = true;
        if (now - subscriber.lastSentMs > BEHIND_MAX_MS) subscriber.stream.close();
        return;
      case "closed":
        return;
      default:
        result satisfies never;
    }
  }
}

function messageOf(regions: Regions, ids: readonly string[]): string {
  return encodeMessage(markup(Partials({ regions, only: ids })));
}
