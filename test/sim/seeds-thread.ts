/** Runs the seeds that it is told on a thread of its own, and answers which of them broke what: `[seed, failure]`. */
import { asThen, report, runSeed } from "./batch.ts";

declare const self: Worker;

self.addEventListener(
  "message",
  ({ data }: MessageEvent<readonly (readonly [number, readonly string[]])[]>) => {
    void (async () => {
      const broken: [seed: number, failure: unknown][] = [];
      for (const [seed, without] of data) {
        const override = asThen(seed, without);
        const result = await runSeed(seed, false, override);
        report(result, false, override);
        const { failure } = result;
        if (failure !== null) broken.push([seed, failure]);
      }
      self.postMessage(broken);
    })();
  },
);
