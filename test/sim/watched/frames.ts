/** The frames between members: they are a part of the story, and are shown to the rules. */
import type { NodeId } from "../../../src/raft/types.ts";
import type { Millis } from "../../../src/replica/ports.ts";
import type { CoreState } from "../invariants/invariant.ts";
import type { NetworkWatch } from "../network.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";

export function watchedFrames(
  sim: Simulation,
  nodeOf: (id: NodeId) => SimNode | undefined,
): NetworkWatch {
  /** Of the member that a message was just delivered to. */
  let before: CoreState | null = null;
  return {
    sent: (from, to, frame) => sim.trace.frame(from, to, frame),
    delivered: (from, to, frame) => {
      sim.trace.frame(to, from, frame);
      const node = nodeOf(to);
      if (node === undefined) return;
      if (frame.kind === "call" && frame.method === "replica.clock")
        for (const rule of sim.watching.heardClock)
          rule.heardClock(node, from, (frame.body as { wall: Millis }).wall);
      if (frame.kind !== "raft") return;
      const { message } = frame;
      if (message.type === "append-reply" && message.lost === true)
        nodeOf(from)?.tells(node, message);
      for (const rule of sim.watching.heard) rule.heard(node, message);
      before = node.coreState;
    },
    taken: (to, frame, incarnation) => {
      const node = nodeOf(to);
      if (frame.kind !== "raft" || node === undefined || before === null) return;
      const after = node.coreState;
      if (after !== null)
        for (const rule of sim.watching.took)
          rule.took(node, frame.message, before, after, incarnation);
    },
    doubled: (from, frame) => {
      const node = nodeOf(from);
      if (frame.kind !== "propose" || node === undefined) return;
      for (const { command } of frame.proposal.requests)
        for (const rule of sim.watching.submitted) rule.submitted(node, command);
    },
  };
}
