/** A member's own log, as a part of the story of a run that is told in full. */
import type { NodeId } from "../../../src/raft/types.ts";
import type { Log } from "../../../src/replica/ports.ts";
import type { Simulation } from "../simulation.ts";

export function watchedLog(id: NodeId, { verbose, trace }: Simulation): Log {
  const say =
    (level: string) =>
    (message: string, fields?: Readonly<Record<string, unknown>>): void => {
      if (verbose)
        trace.note(
          id,
          `[${level}] ${message}${fields === undefined ? "" : ` ${JSON.stringify(fields)}`}`,
        );
    };
  return {
    debug: () => undefined,
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
  };
}
