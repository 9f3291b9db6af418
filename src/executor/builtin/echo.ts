/** `echo`: returns its payload. Also the built-in "*". */
import type { Handler } from "../handler.ts";

export const echo: Handler = (payload) => payload;
