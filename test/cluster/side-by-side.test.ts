/** All scenarios, some at a time; scenario.ts says why. The longest come first. */
import "./start-stop.scenario.ts";
import "./power-loss.scenario.ts";
import "./membership.scenario.ts";
import "./main-job.scenario.ts";
import "./failover.scenario.ts";
import "./backup.scenario.ts";
import "./consistency.scenario.ts";
import "./python-worker.scenario.ts";
import "./rescue.scenario.ts";
import "./damage.scenario.ts";
import "./idempotency.scenario.ts";
import "./recorded.scenario.ts";
import "./start-tls.scenario.ts";
import "./start-output.scenario.ts";
import "./start-refused.scenario.ts";
import "./start-installed.scenario.ts";
import "./start.scenario.ts";
