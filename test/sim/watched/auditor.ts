/** A member's audit of its rows, at once: with `short-audits` a pass over all of them takes several rounds. */
import type { Database } from "bun:sqlite";
import { AUDIT_SLICE, InlineAuditor } from "../../../src/queue/auditor.ts";
import type { Auditor } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";

export function watchedAuditor(db: () => Database, sim: Simulation): Auditor {
  const auditor = new InlineAuditor(db, { ...AUDIT_SLICE, rows: sim.options.auditRows });
  return {
    read: async (cursor, begun) => {
      const slice = await auditor.read(cursor, begun);
      if (cursor !== null && slice.next !== null) sim.faults.count("short-audits");
      return slice;
    },
  };
}
