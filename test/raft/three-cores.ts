import * as raft from "../../src/raft/index.ts";

const ids = ["a", "b", "c"].map(raft.asNodeId);
const options = {
  ...raft.DEFAULT_LIMITS,
  heartbeatTicks: 1,
  electionTicks: 10,
  stallTicks: 20,
  drawElectionTicks: () => 10,
};
const start = raft.recoveredState({ entries: [raft.foundingEntry(ids)] });
export const cores = new Map<string, raft.Raft>(
  ids.map((id) => [id, new raft.Raft({ id, ...options }, start)]),
);
export const network: raft.Message[] = [];

function carryOut(core: raft.Raft): void {
  for (let todo = core.takeEffects(); todo !== null; todo = core.takeEffects()) {
    network.push(...todo.messages);
    if (todo.persist !== null) core.persisted(raft.ackOf(todo.persist)); // written and synced
    network.push(...todo.afterPersist); // promises about the disk: not before it is
    if (todo.applicable !== null) core.applied(todo.applicable);
  }
}

/** Delivers what is on its way until nothing is; `network.splice(i, 1)` would lose a message. */
function settle(): void {
  for (const core of cores.values()) carryOut(core);
  for (let message = network.shift(); message !== undefined; message = network.shift()) {
    cores.get(message.to)?.step(message);
    for (const core of cores.values()) carryOut(core);
  }
}

cores.get("a")?.campaign(); // or tick() it ten times
settle();
cores.get("a")?.propose([{ kind: "command", data: new TextEncoder().encode("hello") }]);
settle();
cores.get("a")?.tick(); // the others hear of the commit, if no entry has told them before
settle();
