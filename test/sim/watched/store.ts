/** A member's log as its driver uses it: each write is an effect of the process, and is shown to the rules. */
import type { LogStore } from "../../../src/replica/ports.ts";
import type { SimLogStore } from "../log-store.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";

/** `effect`: false once the process is dead, where nothing that it does happens any more. */
export function watchedStore(
  store: SimLogStore,
  node: SimNode,
  sim: Simulation,
  effect: () => boolean,
): LogStore {
  return {
    open: () => store.open(),
    append: (op, done) => {
      if (!effect()) return;
      for (const rule of sim.watching.appending) rule.appending(node, op);
      store.append(op, done);
      if (store.pending >= (sim.options.limits.maxWritesUnderWay ?? Infinity))
        sim.faults.count("short-queues");
    },
    read: (from, to, maxBytes) => store.read(from, to, maxBytes),
    compact: (index, term) => store.compact(index, term),
    cut: () => store.cut(),
    markInstall: (install) => store.markInstall(install),
    finishInstall: () => store.finishInstall(),
    bindCluster: (clusterId) => store.bindCluster(clusterId),
    stats: () => store.stats(),
    onFailure: (report) => store.onFailure(report),
    close: () => store.close(),
  };
}
