/**
 * Where a member's process begins: the engine's settings first, which may put another process in the place of this one, and
 * only then the composition root with all that it loads.
 */
import { settleEngine } from "./system/engine.ts";

settleEngine();
await import("./member.ts");
