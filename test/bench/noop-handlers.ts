/** Handlers of the members' own executors: the least work there is. `bench` answers when it ran, wall clock in ms. */
import type { Handlers } from "../../src/executor/handler.ts";

const handlers: Handlers = {
  bench: () => performance.timeOrigin + performance.now(),
};

export default handlers;
