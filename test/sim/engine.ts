/**
 * How the JavaScript engine compiles a run; imported before everything else, since the process may be replaced by one with
 * these settings.
 *
 * The engine's last compiler (FTL) is off: it takes a third of a short run's processor time, on threads of its own, over
 * code that is wide and flat.
 */
import { settleEngine } from "../../src/system/engine.ts";

settleEngine({ BUN_JSC_useFTLJIT: "0" });
