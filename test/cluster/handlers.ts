/** Handlers for the tests of the cluster: they leave traces in files, so that every entry and exit can be seen. */
import { appendFileSync } from "node:fs";
import type { Handlers } from "../../src/executor/handler.ts";

interface Traced {
  readonly trace: string;
  readonly ms: number;
}

const handlers: Handlers = {
  async traced(payload, ctx) {
    const { trace, ms } = payload as Traced;
    appendFileSync(
      trace,
      `+ ${performance.timeOrigin + performance.now()} ${ctx.taskId} ${ctx.fence}\n`,
    );
    try {
      await Bun.sleep(ms);
    } finally {
      appendFileSync(
        trace,
        `- ${performance.timeOrigin + performance.now()} ${ctx.taskId} ${ctx.fence}\n`,
      );
    }
    return { ms };
  },
  loop() {
    for (;;);
  },
  /** Cannot be stopped, as `loop`, nor even be killed before it ends; and leaves the processor to others. */
  blocks() {
    Bun.sleepSync(600_000);
  },
  async dies(_payload, ctx) {
    ctx.progress(50, "half");
    process.exit(7);
  },
  async fails() {
    throw new TypeError("on purpose");
  },
  async quick(payload) {
    return payload;
  },
};

export default handlers;
