/**
 * The language of testdata/*.txt. A file is prose (lines that begin with #), and blocks of commands, one a line,
 * closed by ---- and the trace that they must give. `quietly COMMAND` leaves its trace out.
 */
import {
  asIndex,
  asNodeId,
  asTerm,
  type ConfigurationChange,
  type Entry,
  type LogIndex,
  type Message,
  type NodeId,
  type Term,
} from "../../src/raft/types.ts";
import { nodeIds, record, type Settings, TraceCluster } from "./trace-cluster.ts";

/** Runs a file; answers it with the traces as they really are. */
export function play(text: string): string {
  const cluster = new TraceCluster();
  const out: string[] = [];
  let commands: string[] = [];
  let skipping = false;
  for (const line of text.split("\n")) {
    if (skipping) {
      if (line !== "") continue;
      skipping = false;
    }
    if (line === "----") {
      out.push(line, ...run(cluster, commands));
      commands = [];
      skipping = true;
      continue;
    }
    out.push(line);
    if (line !== "" && !line.startsWith("#")) commands.push(line);
  }
  if (commands.length > 0) throw new Error(`no ---- after: ${commands.join("; ")}`);
  return out.join("\n");
}

function run(cluster: TraceCluster, commands: readonly string[]): readonly string[] {
  const trace: string[] = [];
  for (const command of commands) {
    const quiet = command.startsWith("quietly ");
    const words = (quiet ? command.slice(8) : command).split(/\s+/);
    try {
      execute(cluster, words);
    } catch (error) {
      cluster.say(`error: ${error instanceof Error ? error.message : String(error)}`);
    }
    const said = cluster.takeTrace();
    if (!quiet || said.some((line) => line.startsWith("error:"))) trace.push(...said);
  }
  return trace.length === 0 ? ["ok"] : trace;
}

function execute(cluster: TraceCluster, [name = "", ...args]: readonly string[]): void {
  const words = args.filter((word) => !word.includes("="));
  const options = new Map(
    args.filter((word) => word.includes("=")).map((word) => word.split("=", 2) as [string, string]),
  );
  const node = asNodeId(words[0] ?? "");
  const number = (text: string | undefined, otherwise: number): number =>
    text === undefined ? otherwise : Number(text);
  switch (name) {
    case "cluster":
      cluster.found(
        nodeIds(options.get("voters") ?? ""),
        nodeIds(options.get("learners") ?? ""),
        settings(options),
      );
      return;
    case "empty":
      cluster.empty(node);
      return;
    case "plant": {
      const term = number(options.get("term"), 1);
      const vote = options.get("vote");
      cluster.plant(
        node,
        words.slice(1).map(Number),
        term,
        vote === undefined ? null : asNodeId(vote),
      );
      return;
    }
    case "timeout":
      cluster.setTimeout(node, Number(words[1]));
      return;
    case "campaign":
      cluster.act(node, ({ raft }) =>
        raft.campaign({ disregardLeader: words[1] === "disregarding" }),
      );
      return;
    case "stand-down":
      cluster.act(node, ({ raft }) => raft.standDown());
      return;
    case "leader-lost":
      cluster.act(node, ({ raft }) => raft.leaderLost());
      return;
    case "disconnected":
      cluster.act(node, ({ raft }) => raft.disconnected(asNodeId(words[1] ?? "")));
      return;
    case "tick":
      cluster.tick(node === "all" ? cluster.ids : [node], number(words[1], 1));
      return;
    case "propose":
      propose(cluster, node, words.slice(1));
      return;
    case "change":
      change(cluster, node, words.slice(1));
      return;
    case "read":
      cluster.act(node, ({ raft }) => raft.readIndex(Number(words[1])));
      return;
    case "awaits":
      cluster.act(node, ({ raft }) =>
        raft.awaitsCommit(asNodeId(words[1] ?? ""), asIndex(Number(words[2]))),
      );
      return;
    case "transfer":
      cluster.act(node, ({ raft }) => {
        if (!raft.transfer(asNodeId(words[1] ?? ""))) cluster.say(`${node} refuses the transfer`);
      });
      return;
    case "compact":
      cluster.act(node, (member) => member.compact(asIndex(Number(words[1]))));
      return;
    case "snapshot-failed":
      cluster.act(node, ({ raft }) =>
        raft.snapshotSent(asNodeId(words[1] ?? ""), asIndex(0), false),
      );
      return;
    case "damage":
      cluster.damage(node, Number(words[1]));
      return;
    case "install":
      cluster.install(node);
      return;
    case "persist":
      cluster.persist(node, number(words[1], Infinity));
      return;
    case "hold-disk":
      cluster.holdDisk(node, true);
      return;
    case "free-disk":
      cluster.holdDisk(node, false);
      return;
    case "crash":
      cluster.crash(node, number(options.get("kept"), 0));
      return;
    case "restart":
      cluster.restart(node);
      return;
    case "partition":
      cluster.partition(words.map(nodeIds));
      return;
    case "heal":
      cluster.heal();
      return;
    case "deliver":
      cluster.deliver(cluster.take(words[0] ?? "*>*", words[1] ?? null));
      return;
    case "drop":
      cluster.take(words[0] ?? "*>*", words[1] ?? null);
      return;
    // Keeps messages back (stash) or copies of them (copy), to deliver them late (replay).
    case "stash":
      cluster.drawer(words[0] ?? "").push(...cluster.take(words[1] ?? "*>*", words[2] ?? null));
      return;
    case "copy": {
      const taken = cluster.take(words[1] ?? "*>*", words[2] ?? null);
      cluster.drawer(words[0] ?? "").push(...taken);
      cluster.putBack(taken);
      return;
    }
    case "replay":
      cluster.deliver(cluster.drawer(words[0] ?? "").splice(0));
      return;
    // A message that no member here has sent.
    case "forge":
      cluster.deliver([forge(args)]);
      return;
    case "stabilize":
      cluster.stabilize();
      return;
    case "status":
      cluster.status();
      return;
    case "log":
      cluster.log(node);
      return;
    case "network":
      cluster.network();
      return;
    default:
      throw new Error(`unknown command ${name}`);
  }
}

function propose(cluster: TraceCluster, node: NodeId, texts: readonly string[]): void {
  const encoder = new TextEncoder();
  // "x*500" stands for 500 bytes.
  const items = texts.map((text) => {
    const [letter = "", count] = text.split("*");
    const data = encoder.encode(count === undefined ? text : letter.repeat(Number(count)));
    return { kind: "command" as const, data };
  });
  cluster.act(node, ({ raft }) => {
    const result = raft.propose(items);
    if (!result.ok) cluster.say(`${node} refuses: ${result.reason} (${result.detail})`);
  });
}

function change(cluster: TraceCluster, node: NodeId, words: readonly string[]): void {
  const changes: ConfigurationChange[] = [];
  for (let i = 0; i < words.length; i += 2) {
    const op = words[i] as ConfigurationChange["op"];
    const id = asNodeId(words[i + 1] ?? "");
    if (op === "add-learner" || op === "update") changes.push({ op, id, record: record(id) });
    else changes.push({ op, id });
  }
  cluster.act(node, ({ raft }) => {
    const result = raft.proposeChange(changes);
    if (!result.ok) cluster.say(`${node} refuses: ${result.reason} (${result.detail})`);
  });
}

/** "3@2": index and term. */
function position(text: string): { index: LogIndex; term: Term } {
  const [index, term] = text.split("@").map(Number);
  return { index: asIndex(index ?? 0), term: asTerm(term ?? 0) };
}

function forge([route = "", type = "", ...args]: readonly string[]): Message {
  const [from, to] = route.split(">").map(asNodeId);
  if (from === undefined || to === undefined) throw new Error(`no route: ${route}`);
  const option = new Map(
    args.filter((arg) => arg.includes("=")).map((arg) => arg.split("=", 2) as [string, string]),
  );
  const address = { from, to, term: asTerm(Number(option.get("term"))) };
  const commit = asIndex(Number(option.get("commit") ?? 0));
  switch (type) {
    case "append": {
      const prev = position(option.get("prev") ?? "");
      const entries: Entry[] = args
        .filter((arg) => !arg.includes("="))
        .map((arg) => ({
          ...position(arg),
          kind: "command",
          data: new TextEncoder().encode("forged"),
        }));
      return { ...address, type, prevIndex: prev.index, prevTerm: prev.term, entries, commit };
    }
    case "commit": {
      const prev = position(option.get("prev") ?? "");
      return { ...address, type, prevIndex: prev.index, prevTerm: prev.term, commit };
    }
    case "heartbeat":
      return { ...address, type, commit, round: 1 };
    case "vote-reply":
      return { ...address, type, pre: false, granted: args.includes("granted") };
    case "vote": {
      const last = position(option.get("last") ?? "");
      const flags = { pre: false, transfer: false, leaderLost: false };
      return { ...address, type, ...flags, lastIndex: last.index, lastTerm: last.term };
    }
    default:
      throw new Error(`cannot forge ${type}`);
  }
}

const SETTINGS: Readonly<Record<string, keyof Settings>> = {
  "append-bytes": "maxAppendBytes",
  window: "maxInflightMessages",
  "window-bytes": "maxInflightBytes",
  "uncommitted-bytes": "maxUncommittedBytes",
  "cache-bytes": "cacheBytes",
};

function settings(options: ReadonlyMap<string, string>): Partial<Settings> {
  const chosen: { -readonly [K in keyof Settings]?: number } = {};
  for (const [word, key] of Object.entries(SETTINGS)) {
    const value = options.get(word);
    if (value !== undefined) chosen[key] = Number(value);
  }
  return chosen;
}
