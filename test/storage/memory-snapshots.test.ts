import { MemoryFolder, MemoryLog } from "../../src/storage/memory-log.ts";
import { MemorySnapshots } from "../../src/storage/memory-snapshots.ts";
import { systemClock } from "../../src/system/clock.ts";
import { MEMBER } from "./entries.ts";
import { snapshotSuite } from "./snapshot-suite.ts";

/** The state as text, with a filler of its size; only what a model needs. */
function encode(index: number, term: number, bytes: number): Uint8Array {
  const position = JSON.stringify({ index, term, machineVersion: 1 });
  return new TextEncoder().encode(position.padEnd(bytes, " "));
}

function decode(image: Uint8Array) {
  return JSON.parse(new TextDecoder().decode(image)) as {
    index: number;
    term: number;
    machineVersion: number;
  };
}

snapshotSuite("in memory", () => {
  const folder = new MemoryFolder(MEMBER, "abc");
  let current = encode(0, 0, 100);
  return {
    open: async (onStep) => {
      const log = new MemoryLog({ clock: systemClock, folder, member: MEMBER });
      const recovered = await log.open(1_000);
      let state = current;
      const snapshots = new MemorySnapshots({
        clock: systemClock,
        log,
        nonce: () => crypto.getRandomValues(new Uint8Array(8)).toHex(),
        image: () => state,
        position: decode,
        switchTo: (name, image) => {
          folder.currentState = name;
          current = image;
        },
        reopen: () => {
          state = current;
        },
        ...(onStep === undefined ? {} : { onStep }),
      });
      return {
        log,
        snapshots,
        recovered,
        position: () => {
          const { index, term } = decode(state);
          return { index, term };
        },
        advance: (index, term, bytes) => {
          state = encode(index, term, bytes);
          current = state;
        },
        close: async () => {
          await snapshots.close();
          await log.close();
        },
      };
    },
    leftOvers: () => [],
    remove: () => {},
  };
});
