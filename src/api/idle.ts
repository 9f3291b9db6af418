/** How long connections may be silent, in seconds: the server's idle time-out, and that of requests which are held. */
import type { Millis } from "../replica/ports.ts";

/**
 * Once it has carried a request a silent connection is kept so long: longer than clients' pools and balancers keep one (a minute,
 * Go's 90 s), so that they end it. A member that ended it first would meet requests on their way, and who had sent a POST
 * could not know what became of it.
 */
export const IDLE_S = 120;
/** The runtime's largest; 0 is never, also behind the answer: whoever vanished would hold its connection for good. */
const IDLE_MAX_S = 255;

interface TimesOut {
  timeout(request: Request, seconds: number): void;
}

/** A long poll is silent for `waitMs`, at most a minute, and some seconds more where the cluster has to be waited for. */
export function held(server: TimesOut | null, request: Request, waitMs: Millis): void {
  server?.timeout(request, Math.min(IDLE_MAX_S, IDLE_S + Math.ceil(waitMs / 1_000)));
}

/** Nothing is sent while something is made that takes long; what is sent slowly is not silent. */
export function slow(server: TimesOut | null, request: Request): void {
  server?.timeout(request, IDLE_MAX_S);
}
