/** A member's connections as its driver uses them: each frame is an effect of the process, and is shown to the rules. */
import type { Transport } from "../../../src/replica/ports.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { SimTransport } from "../transport.ts";

/** `effect`: false once the process is dead, where nothing that it does happens any more. */
export function watchedTransport(
  transport: SimTransport,
  node: SimNode,
  sim: Simulation,
  effect: () => boolean,
): Transport {
  return {
    start: (self, events) => transport.start(self, events),
    setPeers: (peers) => transport.setPeers(peers),
    send: (to, frame) => {
      if (!effect()) return false;
      if (frame.kind === "raft") {
        for (const rule of sim.watching.sent) rule.sent(node, frame.message);
      }
      return transport.send(to, frame);
    },
    isConnected: (peer) => transport.isConnected(peer),
    dismiss: (peer, refusal) => transport.dismiss(peer, refusal),
    roundTripMs: () => transport.roundTripMs(),
    close: () => transport.close(),
  };
}
