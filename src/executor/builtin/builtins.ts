/** The built-in handlers by name. */
import type { Handler } from "../handler.ts";
import { NetworkGuard } from "../network-guard.ts";
import { compute } from "./compute.ts";
import { echo } from "./echo.ts";
import { fail } from "./fail.ts";
import { createHttp } from "./http.ts";
import { createIo } from "./io.ts";
import { sleep } from "./sleep.ts";

/** @throws RangeError when an `allowNet` rule is malformed. */
export function createBuiltins(
  ioRoots: readonly string[],
  allowNet: readonly string[],
): ReadonlyMap<string, Handler> {
  const guard = new NetworkGuard(allowNet);
  return new Map<string, Handler>([
    ["echo", echo],
    ["compute", compute],
    ["io", createIo(ioRoots, guard)],
    ["http", createHttp(guard)],
    ["sleep", sleep],
    ["fail", fail],
    ["*", echo],
  ]);
}
