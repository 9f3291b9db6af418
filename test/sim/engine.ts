/**
 * How the JavaScript engine compiles a run; imported before everything else, since the process may be replaced by one with
 * these settings.
 *
 * The engine's last compiler (FTL) is off: over code that is wide and flat it costs a sixth of a short run's processor
 * time, and gains nothing in a long one (measured: docs/simulator.md). And garbage is collected half as often as in a heap
 * that begins small.
 */
import { settleEngine } from "../../src/system/engine.ts";

settleEngine({ BUN_JSC_useFTLJIT: "0", BUN_JSC_largeHeapSize: String(128 * 1024 * 1024) });
