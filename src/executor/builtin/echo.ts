/**
 * `echo`: returns its payload. Also the built-in "*". The thread does not call it: it answers with the payload's
 * text as it came, which parsing and printing would change (9007199254740993, 1.0).
 */
import type { Handler } from "../handler.ts";

export const echo: Handler = (payload) => payload;
