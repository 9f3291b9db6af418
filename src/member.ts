/**
 * The composition root: flags → real ports → parts → listen. What a member does is in the parts; this file
 * only puts them together, and takes them apart again on a signal.
 */
import { statSync } from "node:fs";
import { stat, statfs } from "node:fs/promises";
import packageJson from "../package.json" with { type: "json" };
import { createApi } from "./api/api.ts";
import { type ConsensusFigures, ConsensusMetrics } from "./api/consensus-metrics.ts";
import { endedSessionCookie, Tokens } from "./api/auth.ts";
import { taskFromForm } from "./api/form-task.ts";
import { IDLE_S } from "./api/idle.ts";
import { broken, peersOnly, refusedPeer, starting } from "./api/outside.ts";
import { asGiven, type Config, ConfigError, originOf, parseConfig } from "./config.ts";
import { createDashboard } from "./dashboard/dashboard.ts";
import { ExecutorPool, HandlersError } from "./executor/executor-pool.ts";
import { MACHINE_VERSIONS } from "./queue/commands.ts";
import { TaskMachine, WRITE_BEHIND_ROWS } from "./queue/machine.ts";
import { ThreadAuditor } from "./queue/auditor.ts";
import { POSITION_QUERY } from "./queue/schema.ts";
import { FlotillaQueue } from "./queue/queue.ts";
import { QueueError } from "./queue/service.ts";
import { ThreadReader } from "./queue/task-reader.ts";
import { DEFAULT_LOG_TAIL, DEFAULT_SETTINGS, type Settings } from "./queue/types.ts";
import { FatalError, type Log } from "./replica/ports.ts";
import type { NodeId } from "./raft/types.ts";
import { ConsensusError } from "./replica/consensus.ts";
import { Replica } from "./replica/replica.ts";
import { refuseForeignFiles, refuseHalfRestored, restore } from "./restore.ts";
import { Backups } from "./storage/backups.ts";
import { CheckpointSchedule } from "./storage/checkpoint-schedule.ts";
import { condemnState, readCondemned } from "./storage/condemned-file.ts";
import { markRemoved, readRemoved } from "./storage/removed-file.ts";
import { openDataFolder } from "./storage/data-folder.ts";
import { LogCompaction } from "./storage/log-compaction.ts";
import { SeenFile } from "./storage/seen-file.ts";
import { SqliteLog } from "./storage/sqlite-log.ts";
import { SqliteSnapshots } from "./storage/sqlite-snapshots.ts";
import { StateCheckpointer } from "./storage/state-checkpointer.ts";
import {
  connectState,
  isDamage,
  markDamaged,
  openStateDatabase,
} from "./storage/state-database.ts";
import { catchUp, systemClock as clock } from "./system/clock.ts";
import { hasDescriptorsForThread } from "./system/descriptors.ts";
import { LoopWatch } from "./system/loop-watch.ts";
import { MemoryReturn } from "./system/memory-return.ts";
import { listeningLine, openLog } from "./system/log.ts";
import { Output } from "./system/output.ts";
import { systemRandom as random } from "./system/random.ts";
import { findMember } from "./transport/find-member.ts";
import { WebSocketTransport } from "./transport/websocket-transport.ts";

/** Between two looks at the free space of the data folder; and while there is less than twice the reserve. */
const DISK_LOOK_MS = 1_000;
const DISK_LOOK_LOW_MS = 100;
/** Between two tries to add a member to a restored cluster. */
const ADD_AGAIN_MS = 1_000;
/** A checkpoint waits this long at most for the audit's slice: three times what one rests and works on an idle machine. */
const AUDIT_WAIT_MS = 500;
/** A leader that leaves waits this long for somebody to take over. */
const HANDOVER_MS = 2_000;
/** Between two tries to reach the member at `--join`. */
const JOIN_RETRY_MS = 500;
/**
 * A member that comes back answers 503 `starting` until it is in touch with its leader, which is a matter of two
 * handshakes; for so long at most: without a leader, requests wait for one here as anywhere.
 */
const FIRST_CONTACT_MS = 1_000;
const CONTACT_LOOK_MS = 5;
/** Requests in flight get this long after everything else has ended. */
const STOP_SERVER_MS = 1_000;
const STOP_LOOK_MS = 5;
/** After `--drain` the process has this long to hand back, close and end; then it ends as it is. */
const SHUTDOWN_GRACE_MS = 5_000;
/**
 * Bodies are refused at 8 MiB by the API, with a problem, before they are read. The server's own limit answers
 * without one, so there is none.
 */
const SERVER_BODY_MAX = Number.MAX_SAFE_INTEGER;

/** Exit codes, as the README tells them: 0 asked to end, 1 cannot go on, 2 cannot start as it is told to. */
const EXIT = { ended: 0, failed: 1, refused: 2 } as const;

const output = new Output();
/** From the first connection on: what fails from then on is no mistake of how the process was started. */
let serving = false;

async function main(): Promise<void> {
  const config = configure();
  const log = await openLog(config.logLevel, config.logFormat, config.id, output);
  try {
    await run(config, log);
  } catch (error) {
    fail(error, config, log);
  }
}

function configure(): Config {
  try {
    const parsed = parseConfig(process.argv.slice(2), process.env, {
      isTerminal: process.stdout.isTTY,
    });
    if (!("help" in parsed)) return parsed;
    process.stdout.write(parsed.help);
    process.exit(EXIT.ended);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    output.writeError(`${error.message}\n`);
    process.exit(EXIT.refused);
  }
}

/**
 * A folder that founded a cluster of one is not a new member of another: with `--peers` or `--join` it would go
 * on alone, healthy, while the others wait for it.
 */
function refuseOtherCluster(
  { peers, join, data, id }: Config,
  { isAlone, foundedAlone }: Pick<Replica, "isAlone" | "foundedAlone">,
): void {
  // Of a cluster that grew it may stay in the command, and whether this member is still one of it the others say.
  if (join !== null && foundedAlone && isAlone) {
    throw new ConfigError(
      `--join ${join}: ${data} was used, it holds a cluster that ${id} began alone: give --data an empty folder, or leave --join out.`,
    );
  }
  if (peers === null || !isAlone) return;
  const others = [...peers.keys()].filter((peer) => peer !== id);
  if (others.length === 0) return;
  throw new ConfigError(
    `--peers names ${others.join(", ")}, but ${data} holds a cluster of ${id} alone: give --data an empty folder, or leave --peers out.`,
  );
}

function joinRefused({ join, data }: Config, why: string): ConfigError {
  return new ConfigError(
    `--join ${join} with --data ${data} is refused: ${why.replace(/\.$/, "")}.`,
  );
}

/** Finds out who is at `--join`, however long it takes, and asks to be added; checks a used folder once. */
async function joinCluster(
  config: Config,
  join: string,
  replica: Replica,
  log: Log,
  stopping: AbortSignal,
): Promise<void> {
  const { peers, peerCa, tls, id, data } = config;
  const dialTls = { ...(peerCa === null ? {} : { ca: peerCa }), ...tls };
  const elsewhere = new Set((peers ?? new Map<NodeId, string>()).keys());
  let warned = false;
  while (!stopping.aborted) {
    const found = await findMember(join, dialTls, elsewhere);
    const { clusterId } = replica.status();
    if (clusterId !== null) {
      // It joined before: the flag says nothing new, unless the folder is of another cluster.
      if (found.kind !== "member" || found.clusterId === null || found.clusterId === clusterId)
        return;
      throw joinRefused(
        config,
        `${data} was used in cluster ${clusterId}, and ${found.id} belongs to ${found.clusterId}: give --data an empty folder`,
      );
    }
    if (found.kind === "refused") throw joinRefused(config, found.why);
    if (found.kind === "member" && found.id === id)
      throw joinRefused(config, `the member there is named ${id} too: give this one another --id`);
    if (found.kind === "member") {
      replica.joinThrough(found.id);
      return;
    }
    if (!warned) log.warn(`--join ${join} is not reached, and is tried again: ${found.why}`);
    warned = true;
    await Bun.sleep(JOIN_RETRY_MS);
  }
}

async function restoreIfAsked(
  { restore: file, id, data }: Config,
  folder: string,
  advertise: string,
  log: Log,
): Promise<void> {
  if (file === null) {
    refuseHalfRestored(folder, data);
    return;
  }
  const now = clock.wall();
  const clusterId = random.uuid(now);
  await restore({ folder, data, file, member: id, advertise, clusterId, now, log });
}

/**
 * A restored cluster begins with one member, who alone has the state. The others of `--peers`, started with empty
 * folders, are added to it as if they had asked.
 */
async function addOthers(
  replica: Replica,
  { peers, id, requestTimeoutMs }: Config,
  log: Log,
): Promise<void> {
  if (Object.keys(replica.status().configuration.members).length > 1) return;
  for (const [peer, url] of peers ?? []) {
    if (peer === id) continue;
    const request = { id: peer, url, incarnation: null, voter: false, replaces: null };
    for (let tries = 0; ; tries++) {
      try {
        await replica.call("members.add", request, requestTimeoutMs);
        break;
      } catch (error) {
        if (error instanceof ConsensusError && error.reason === "stopping") return;
        if (tries === 0) log.warn(`${peer} cannot be added yet`, { error: String(error) });
        await Bun.sleep(ADD_AGAIN_MS);
      }
    }
  }
}

/** Ends the process: one sentence for what the operator can mend, the stack for what only we can. */
function fail(error: unknown, { fromEnvironment }: Config, log: Log): never {
  const usage = error instanceof HandlersError || error instanceof ConfigError;
  const known = error instanceof FatalError || usage;
  if (known) output.writeError(`${asGiven(error.message, fromEnvironment)}\n`);
  else
    log.error(error instanceof Error ? error.message : String(error), {
      stack: error instanceof Error ? error.stack : null,
    });
  process.exit(usage || (known && !serving) ? EXIT.refused : EXIT.failed);
}

async function run(config: Config, log: Log): Promise<void> {
  const tokens = new Tokens(config.tokens ?? []);
  const stopping = new AbortController();
  const { peers, secret, join } = config;
  let takesPeers = (): boolean => peers !== null || secret !== null || join !== null;
  const transport = new WebSocketTransport({
    selfId: config.id,
    secret: config.secret,
    acceptsPeers: () => takesPeers(),
    tls: { ...(config.peerCa === null ? {} : { ca: config.peerCa }), ...config.tls },
    clock,
    random,
    log,
  });

  if (config.restore !== null) refuseForeignFiles(config.data, config.data);
  const folder = openDataFolder(config.data);
  let fetchHandler: (request: Request) => Response | Promise<Response> = () => starting(random);
  const server = listen(config, transport, (request) => fetchHandler(request));
  const peerServer = config.peerPort === null ? null : listenForPeers(config, transport);
  const url = originOf(config.tls === null ? "http" : "https", config.host, server.port ?? 0);
  const advertise = config.advertise ?? url;

  await restoreIfAsked(config, folder.path, advertise, log);
  let state = openStateDatabase(folder.path);
  const machine = TaskMachine.open(state.db, { writeBehind: WRITE_BEHIND_ROWS });
  const store = new SqliteLog(folder.path, config.id);
  const metrics = new ConsensusMetrics();
  store.onTransaction((ms, writes) => metrics.logWritten(ms, writes));
  const loop = new LoopWatch(clock, (ms) => metrics.loopDelayed(ms));
  // Readers wait while this word is 1: the last step of a checkpoint.
  const pause = new SharedArrayBuffer(4);
  const reader = new ThreadReader(
    state.path,
    (error) => log.error("the reader thread died", { error: error.message }),
    pause,
    hasDescriptorsForThread,
  );
  const auditor = new ThreadAuditor(state.path);
  const snapshots = new SqliteSnapshots({
    folder: folder.path,
    log: store,
    currentState: () => state.name,
    positionQuery: POSITION_QUERY,
    reopen: (name) => {
      const before = state.db;
      state = connectState(folder.path, name);
      machine.reopen(state.db);
      reader.reopen(state.path);
      auditor.reopen(state.path);
      before.close();
    },
  });
  const disk = watchDisk(folder.path, config.diskReserveBytes, stopping.signal);
  const replica = await Replica.open({
    clock,
    random,
    log,
    store,
    snapshots,
    transport,
    machine,
    machineVersions: MACHINE_VERSIONS,
    heartbeatMs: config.heartbeatMs,
    electionTimeoutMs: config.electionTimeoutMs,
    advertise,
    peers: config.peers ?? new Map(),
    join,
    seen: new SeenFile(folder.path, log),
    removed: {
      load: (...whose) => readRemoved(folder.path, ...whose),
      keep: (...whose) => markRemoved(folder.path, ...whose),
    },
    onJoinRefused: (why) => fail(joinRefused(config, why), config, log),
    foundingSettings: foundingSettings(config),
    diskFull: () => disk.full(),
    diskLow: () => disk.free() < config.diskReserveBytes,
    stateDamage: state.damage,
    onFatal: (error) => {
      if (isDamage(error)) markDamaged(state.path);
      fail(error, config, log);
    },
    auditor,
    condemned: readCondemned(folder.path, state.name),
    observer: metrics,
    onCondemned: (sentence) => {
      condemnState(folder.path, state.name, sentence);
      pool.suspend(sentence);
    },
  });

  const memory = returnMemory(loop, machine, replica);
  const members = (): readonly string[] => Object.keys(replica.status().configuration.members);
  if (config.restore === null) refuseOtherCluster(config, replica);
  const asStarted = takesPeers;
  // One that joined may know no others yet than the founder, and not that it is a member itself.
  takesPeers = () => asStarted() || members().some((id) => id !== config.id);
  const appliedIndex = (): number => machine.applied().index;
  const checkpoints = new CheckpointSchedule({
    checkpointer: new StateCheckpointer({
      path: () => state.path,
      appliedIndex,
      settle: () => Promise.race([auditor.settled(), Bun.sleep(AUDIT_WAIT_MS)]),
      hold: () => holdAll(replica, new Int32Array(pause)),
    }),
    clock,
    log,
    appliedIndex,
    onFatal: (error) => fail(error, config, log),
  });
  const backups = new Backups({
    snapshots,
    flush: () => machine.flush(),
    nodeId: config.id,
    clusterId: () => machine.clusterId(),
    wall: () => clock.wall(),
  });
  const compaction = new LogCompaction({
    clock,
    log,
    limits: () => {
      const { log_tail: tail = DEFAULT_LOG_TAIL } = machine.settings();
      return {
        bytesMax: tail.max_bytes,
        ageMaxMs: tail.max_ms,
        youngBytes: tail.young_bytes,
        youngMs: tail.young_ms,
      };
    },
    applied: appliedIndex,
    bytesWritten: () => store.stats().bytesWritten,
    recovered: store.stats(),
    durableApplied: () => checkpoints.durableApplied,
    stateBytes: async () => (await stat(state.path)).size,
    compact: (index) => replica.compact(index),
  });
  const queue = new FlotillaQueue({
    consensus: replica,
    machine,
    reader,
    clock,
    log,
    requestTimeoutMs: config.requestTimeoutMs,
    contactTimeoutMs: 2 * config.electionTimeoutMs,
    admission: () => (replica.diskLow() ? "low-disk" : null),
    diskFault: () => replica.diskFault() ?? disk.fault(),
    lowDisk: () =>
      replica.diskLow()
        ? `the disk of ${config.id} has ${Math.round(disk.free() / 1024 ** 2)} MiB left, less than --disk-reserve: it takes no tasks until there is room`
        : null,
  });
  const pool = new ExecutorPool({
    queue,
    member: config.id,
    boot: replica.boot,
    concurrency: config.concurrency,
    handlers:
      config.handlers === null
        ? { kind: "builtin", names: config.builtin }
        : { kind: "module", path: config.handlers, builtin: config.builtin },
    ioRoots: config.ioRoots,
    allowNet: config.allowNet,
    clock,
    log,
    leaseMs: () => machine.settings().lease,
    resultMaxBytes: () => machine.settings().max_payload,
    random: () => random.float(),
    mayStart: hasDescriptorsForThread,
  });
  const condemned = replica.condemned();
  if (condemned !== null) pool.suspend(condemned);
  replica.onInstall(() => {
    checkpoints.replaced();
    queue.recheck();
    pool.recheck((taskId) => machine.leaseOf(taskId));
    if (replica.condemned() === null) pool.resume();
  });
  const names = await pool.load();

  const figures = (): ConsensusFigures => ({
    status: replica.status(),
    elections: replica.elections,
    counters: replica.counters,
    log: store.stats(),
    queues: { ...replica.waiting, ...queue.waiting() },
    sendBuffers: transport.sendBuffers(),
    consistency: replica.consistencyChecked(),
    stateDurableIndex: checkpoints.durableApplied,
    stateBytes: bytesOf(state.path),
    stateWalBytes: bytesOf(`${state.path}-wal`),
    diskFreeBytes: disk.free(),
    loopBusy: loop.busyShare,
  });
  const secure = advertise.startsWith("https:");
  const { app: api, shed } = createApi(
    {
      queue,
      members: queue.members(),
      clusterId: () => replica.status().clusterId,
      nodeId: config.id,
      advertise,
      https: config.tls !== null,
      tokens: config.tokens ?? [],
      clock,
      random,
      log,
      answering: catchUp,
      version: packageJson.version,
      draining: () => queue.draining,
      backup: async (signal) => {
        const { size } = await stat(state.path);
        if (disk.free() < size + config.diskReserveBytes / 16)
          throw new QueueError("low-disk", "There is no room on the disk for a copy of the state.");
        return backups.open(signal);
      },
    },
    metrics.gauges(figures, () => new Set(queue.health().alarms.map(({ kind }) => kind))),
    metrics.histograms,
  );
  const app = api.use(
    createDashboard({
      queue,
      nodeId: config.id,
      advertise,
      version: packageJson.version,
      clock,
      random,
      log,
      stopping: stopping.signal,
      auth: {
        required: !tokens.open,
        authenticate: (request) => tokens.authenticate(request),
        sessionCookie: (token) => tokens.sessionCookie(token, secure),
        endSessionCookie: () => endedSessionCookie(secure),
      },
      newTask: (input) => taskFromForm(input, { settings: queue.settings(), clock, random }),
    }),
  );
  app.server = server;
  serving = true;
  replica.start();
  // Its clients would all wait here for a leader, one after the other, while the members that have one idle.
  if (members().length > 1) await firstContact(replica);
  const route = app.fetch;
  fetchHandler = (request) => shed(request) ?? route(request);

  // Whatever the log level: who started the process waits for this line.
  output.open(listeningLine(config.logFormat, config.id, url));
  for (const warning of config.warnings) log.warn(warning);

  if (join !== null)
    void joinCluster(config, join, replica, log, stopping.signal).catch((error: unknown) =>
      fail(error, config, log),
    );
  void queue
    .boot(names)
    .then(() => warnOfSettings(config, queue.settings(), log))
    .then(() => pool.start())
    .catch((error: unknown) => (queue.draining ? undefined : fail(error, config, log)));

  if (config.restore !== null) void addOthers(replica, config, log);

  const stop = async (): Promise<void> => {
    log.info("draining", { running: pool.running, at_most_ms: config.drainMs });
    // Nothing that was acknowledged needs the rest: it is as durable as before a kill -9.
    clock.after(config.drainMs + SHUTDOWN_GRACE_MS, () => {
      log.warn("the shutdown takes too long: ending at once", { running: pool.running });
      process.exit(EXIT.ended);
    });
    queue.beginDrain();
    const drained = pool.drain(config.drainMs);
    await replica.transfer(null, HANDOVER_MS);
    await drained;
    await pool.stop();
    stopping.abort();
    queue.stop();
    compaction.stop();
    await answered(server);
    await replica.stop();
    auditor.close();
    loop.stop();
    memory.stop();
    await server.stop(true);
    await peerServer?.stop(true);
    await checkpoints.stop();
    state.db.close();
    folder.release();
    process.exit(EXIT.ended);
  };
  const onSignal = (): void => {
    // A second signal is the system's to act on: it ends the process even while the event loop stands still.
    process.off("SIGTERM", onSignal);
    process.off("SIGINT", onSignal);
    stop().catch((error: unknown) => fail(error, config, log));
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
}

/** `--port`: everything, the peers' WebSockets at /raft too unless they have a port of their own. */
function listen(
  { host, port, peerPort, tls }: Config,
  transport: WebSocketTransport,
  app: (request: Request) => Response | Promise<Response>,
) {
  try {
    return Bun.serve({
      hostname: host,
      port,
      ...(tls === null ? {} : { tls: { cert: tls.cert, key: tls.key } }),
      maxRequestBodySize: SERVER_BODY_MAX,
      idleTimeout: IDLE_S,
      websocket: transport.websocket,
      fetch: (request, server) => {
        catchUp();
        if (peerPort === null && isPeers(request)) return meetPeer(transport, request, server);
        return app(request);
      },
      error: () => broken(random),
    });
  } catch (error) {
    throw new ConfigError(whyNotListening(error, host, "port", port));
  }
}

/** `--peer-port`: the peers' WebSockets only; with a CA each side must show a certificate of it. */
function listenForPeers({ host, peerPort, tls, peerCa }: Config, transport: WebSocketTransport) {
  const port = peerPort ?? 0;
  const mutual = peerCa === null ? {} : { ca: peerCa, requestCert: true, rejectUnauthorized: true };
  try {
    return Bun.serve({
      hostname: host,
      port,
      ...(tls === null ? {} : { tls: { cert: tls.cert, key: tls.key, ...mutual } }),
      websocket: transport.websocket,
      fetch: (request, server) =>
        isPeers(request) ? meetPeer(transport, request, server) : peersOnly(random),
      error: () => broken(random),
    });
  } catch (error) {
    throw new ConfigError(whyNotListening(error, host, "peer-port", port));
  }
}

/** Nothing when the connection was upgraded. */
function meetPeer(
  transport: WebSocketTransport,
  ...upgrade: Parameters<WebSocketTransport["upgrade"]>
): undefined | Promise<Response> {
  const refusal = transport.upgrade(...upgrade);
  return refusal === undefined ? undefined : refusedPeer(refusal, random);
}

function isPeers(request: Request): boolean {
  return request.url.endsWith("/raft") && new URL(request.url).pathname === "/raft";
}

function whyNotListening(
  error: unknown,
  host: string,
  flag: "port" | "peer-port",
  port: number,
): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
  switch (code) {
    case "EADDRINUSE":
      return `--${flag} ${port} is in use on ${host}: end the process that has it, or give another one.`;
    case "EACCES":
      return `--${flag} ${port} may not be used (${code}): give one from 1024, or the right to use it.`;
    default:
      return `--host ${host} cannot be listened on (${code}): give an address of this machine.`;
  }
}

/** The cluster's settings, if this member founds it: the defaults, and what flags say. */
function foundingSettings({ settings }: Config): Settings {
  return {
    ...DEFAULT_SETTINGS,
    lease: settings.leaseMs ?? DEFAULT_SETTINGS.lease,
    retention: { ...DEFAULT_SETTINGS.retention, ...settings.retentionMs },
    max_payload: settings.maxPayloadBytes ?? DEFAULT_SETTINGS.max_payload,
  };
}

/** Settings are the cluster's: a flag that says otherwise after the founding changes nothing, and is told. */
function warnOfSettings({ settings }: Config, inForce: Settings, log: Log): void {
  const given: readonly (readonly [string, number | null | undefined, number])[] = [
    ["--lease", settings.leaseMs, inForce.lease],
    ["--max-payload", settings.maxPayloadBytes, inForce.max_payload],
    ["--retention completed", settings.retentionMs.completed, inForce.retention.completed],
    ["--retention cancelled", settings.retentionMs.cancelled, inForce.retention.cancelled],
    ["--retention failed", settings.retentionMs.failed, inForce.retention.failed],
  ];
  for (const [flag, wanted, value] of given) {
    if (wanted === null || wanted === undefined || wanted === value) continue;
    log.warn(
      `${flag} is ignored: the cluster has ${value}, and PUT /api/cluster/config changes it`,
      { given: wanted },
    );
  }
}

/** Applies and readers wait until what is returned is called. */
function holdAll(replica: Replica, pause: Int32Array): () => void {
  Atomics.store(pause, 0, 1);
  const release = replica.holdApplies();
  return () => {
    Atomics.store(pause, 0, 0);
    Atomics.notify(pause, 0);
    release();
  };
}

/**
 * Takes no new connections, and resolves when nobody waits for an answer any more, or the time is up. When `stop` itself
 * resolves says nothing: it waits for the members' connections too, which are closed after this.
 */
async function answered(server: ReturnType<typeof listen>): Promise<void> {
  void server.stop();
  const deadline = clock.monotonic() + STOP_SERVER_MS;
  while (server.pendingRequests > 0 && clock.monotonic() < deadline) await Bun.sleep(STOP_LOOK_MS);
}

/** Resolves once this member hears of a leader, or leads; or when it does not for a while. */
async function firstContact(replica: Replica): Promise<void> {
  const deadline = clock.monotonic() + FIRST_CONTACT_MS;
  while (replica.status().leader === null && clock.monotonic() < deadline)
    await Bun.sleep(CONTACT_LOOK_MS);
}

/** Null: there is no such file at this moment. */
function bytesOf(path: string): number | null {
  return statSync(path, { throwIfNoEntry: false })?.size ?? null;
}

interface DiskWatch {
  /** Bytes free at the newest look. */
  readonly free: () => number;
  /** Below a sixteenth of the reserve. */
  readonly full: () => boolean;
  /** A sentence while the disk does not answer a look, or has next to nothing left. */
  readonly fault: () => string | null;
}

/** A collection of a larger heap would take too long even for a quiet moment: the engine does it beside the thread. */
const COLLECTED_HEAP_MAX = 192 * 1024 * 1024;
/** Of the main thread; where that is not known, so few entries between two looks say as much. */
const QUIET_SHARE_MAX = 0.2;
/** A collection stops the thread for some 20 ms: under a light load one task of a hundred would meet it. */
const QUIET_ENTRIES_MAX = 2;

function returnMemory(loop: LoopWatch, machine: TaskMachine, replica: Replica): MemoryReturn {
  let index = 0;
  return new MemoryReturn(clock, {
    isQuiet: () => {
      const before = index;
      ({ index } = machine.applied());
      return (loop.busyShare ?? 0) < QUIET_SHARE_MAX && index - before <= QUIET_ENTRIES_MAX;
    },
    bytes: () => memoryUse()?.rss ?? null,
    collect: () => {
      replica.releaseMemory();
      Bun.gc((memoryUse()?.heapUsed ?? Infinity) <= COLLECTED_HEAP_MAX);
    },
  });
}

/** Null while clients hold every file descriptor that the process may have: it is read from a file. */
function memoryUse(): NodeJS.MemoryUsage | null {
  try {
    return process.memoryUsage();
  } catch {
    return null;
  }
}

/** Looks at the free space now and then; asking at every submit would block the loop on a sick disk. */
function watchDisk(path: string, reserveBytes: number, stopping: AbortSignal): DiskWatch {
  let freeBytes = Number.POSITIVE_INFINITY;
  let failure: string | null = null;
  const look = async (): Promise<void> => {
    try {
      const { bavail, bsize } = await statfs(path);
      freeBytes = bavail * bsize;
      failure = null;
    } catch (error) {
      failure = `the disk does not answer: ${error instanceof Error ? error.message : String(error)}`;
    }
    const isLow = freeBytes < 2 * reserveBytes;
    const pause = isLow && failure === null ? DISK_LOOK_LOW_MS : DISK_LOOK_MS;
    if (!stopping.aborted) clock.after(pause, () => void look());
  };
  void look();
  const full = (): boolean => freeBytes < reserveBytes / 16;
  return {
    free: () => freeBytes,
    full,
    fault: () => failure ?? (full() ? "the disk is almost full" : null),
  };
}

await main();
