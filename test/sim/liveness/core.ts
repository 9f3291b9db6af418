/** How those that were healed stand, for whoever reads what broke. */
import type { Simulation } from "../simulation.ts";

export function describeCore(sim: Simulation): string {
  return sim
    .core()
    .map(({ id, up, applied, leadership, replica }) => {
      const status = replica?.status();
      return `${id} ${up ? "up" : "down"} ${leadership?.role ?? "?"} term ${leadership?.term ?? "?"} applied ${applied} commit ${status?.commit ?? "?"} last ${status?.lastIndex ?? "?"} ${status?.waiting ?? ""} ${replica?.clockAlarm() ?? ""}`;
    })
    .join("; ");
}
