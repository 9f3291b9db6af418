/** What a handlers module imports: `import { NonRetryableError, RetryAfter, Snooze, type Handlers } from "flotilla"`. */
export { NonRetryableError, RetryAfter, Snooze } from "./executor/errors.ts";
export type { Handler, HandlerContext, Handlers } from "./executor/handler.ts";
