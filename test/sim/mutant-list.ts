/**
 * Known bugs as edits of the sources' text; docs/simulator.md says which seed kills which. A number is only a
 * name: those were thought of before the sources were written, the others afterwards.
 */
import { type Mutant, one } from "./mutant.ts";
import { FROM_OUTSIDE } from "./mutants-from-outside.ts";
import { OF_ONE_LINE } from "./mutants-of-one-line.ts";
import { OF_OUR_OWN } from "./mutants-of-our-own.ts";

const RAFT = "src/raft/raft.ts";
const FOLLOWING = "src/raft/following.ts";
const LEADERSHIP = "src/raft/leadership.ts";

export const MUTANTS: readonly Mutant[] = [
  one(
    "1",
    "commits an entry of an earlier term by counting copies",
    RAFT,
    "if (index > this.commit && this.#log.termAt(index) === this.#term) {",
    "if (index > this.commit) {",
  ),
  one(
    "2",
    "sends a vote before it is durable",
    RAFT,
    'this.#sendAfterPersist(from, { type: "vote-reply", pre, granted });',
    'this.#send(from, { type: "vote-reply", pre, granted });',
  ),
  one(
    "3",
    "counts its own vote before it is durable",
    RAFT,
    "    this.#votes = new Map();\n    this.#askForVotes(false, transfer);",
    "    this.#votes = new Map([[this.id, true]]);\n    this.#askForVotes(false, transfer);\n    this.#tally();",
  ),
  one(
    "5",
    "forgets its vote on stepping down within a term",
    RAFT,
    '    this.#role = "follower";\n    this.#leading = null;',
    '    this.#vote = null;\n    this.#role = "follower";\n    this.#leading = null;',
  ),
  one(
    "6",
    "counts a vote reply of an older election",
    RAFT,
    "    if (message.term < this.#term) {\n",
    '    if (message.term < this.#term) {\n      if (message.type === "vote-reply") this.#onVoteReply({ ...message, term: this.#term });\n',
  ),
  one(
    "7",
    "truncates on any append, not only at a conflict",
    "src/raft/log.ts",
    "const news = entries.findIndex(({ index, term }) => this.termAt(index) !== term);",
    "const news = entries.length > 0 ? 0 : -1;",
  ),
  one(
    "9",
    "commits as far as the leader though it checked less",
    FOLLOWING,
    "this.#log.commitTo(asIndex(Math.min(commit, checked)));",
    "this.#log.commitTo(asIndex(Math.min(commit, this.#log.last)));",
  ),
  one(
    "10",
    "counts a success reply of an older term",
    RAFT,
    '      case "vote-reply":\n      case "append-reply":\n      case "heartbeat-reply":\n      case "read-index-reply":\n      case "timeout-now":\n      case "snapshot-reply":\n        return;\n    }\n  }\n\n  #refuseStaleAppend',
    '      case "append-reply":\n        if (this.#leading?.appendReply(message) === true) this.#matchMoved(this.#leading);\n        return;\n      case "vote-reply":\n      case "heartbeat-reply":\n      case "read-index-reply":\n      case "timeout-now":\n      case "snapshot-reply":\n        return;\n    }\n  }\n\n  #refuseStaleAppend',
  ),
  one(
    "11",
    "lets the hint of a refusal move match",
    LEADERSHIP,
    "    peer.becomeProbe(asIndex(Math.min(prevIndex, guess.index + 1)));",
    "    peer.matched(asIndex(Math.min(hint.index, this.#log.last)));\n    peer.becomeProbe(asIndex(Math.min(prevIndex, guess.index + 1)));",
  ),
  one(
    "12",
    "begins a term without an entry",
    RAFT,
    '    this.#append([{ kind: "noop", data: NO_DATA }]);',
    "",
  ),
  one(
    "13",
    "answers a read before the first commit of the term",
    RAFT,
    "    else if (!this.#hasCommittedInTerm()) leading.reads.holdEarly(request);\n",
    "",
  ),
  one(
    "13b",
    "answers a read without a round",
    RAFT,
    "    const round = leading.heartbeat();\n",
    "    const round = 0;\n",
  ),
  one(
    "22",
    "takes an acknowledgement for what was overwritten meanwhile",
    "src/raft/pending-writes.ts",
    "      if (write.vouches >= from) write.vouches = asIndex(from - 1);",
    "      if (write.vouches < 0) write.vouches = asIndex(from - 1);",
  ),
  one(
    "23",
    "acknowledges before fsync",
    FOLLOWING,
    'this.#out.sendAfterPersist(from, term, { type: "append-reply", prevIndex, match, hint: null });',
    'this.#out.send(from, term, { type: "append-reply", prevIndex, match, hint: null });',
  ),
  one(
    "25",
    "sets its election timer back on a refused vote",
    RAFT,
    "    if (granted) {\n      if (this.#log.writesUnderWay",
    "    this.#startTimeout();\n    if (granted) {\n      if (this.#log.writesUnderWay",
  ),
  one(
    "26",
    "applies by its own clock instead of log time",
    "src/queue/machine.ts",
    "this.#logTime = Math.max(this.#logTime, entry.now);",
    "this.#logTime = Math.max(this.#logTime, Date.now());",
  ),
  one(
    "27",
    "accepts a completion under a stale fence",
    "src/queue/transitions.ts",
    "  if (row.status !== RUNNING || row.attempt !== ref.attempt || row.fence !== ref.fence) {",
    "  if (row.status !== RUNNING) {",
  ),
  one(
    "28",
    "expires a lease without looking again in apply",
    "src/queue/transitions.ts",
    "  return row.attempt === ref.attempt && row.fence === ref.fence ? row : null;",
    "  return row;",
  ),
  one(
    "32",
    "applies what is committed and not durable here",
    "src/raft/log.ts",
    "    return asIndex(Math.min(this.#commit, this.#durable));",
    "    return this.#commit;",
  ),
  one(
    "35",
    "takes a second set for a repeated claim",
    "src/queue/execution.ts",
    "    if (earlier !== null) {\n",
    "    if (earlier !== null && earlier.first < 0) {\n",
  ),
  one(
    "36",
    "a deposed leader answers heartbeats",
    "src/queue/leader.ts",
    "    await this.#o.consensus.linearize(this.#o.requestTimeoutMs);\n",
    "",
  ),
  one(
    "4",
    "keeps term and vote in two transactions",
    "src/storage/log-file.ts",
    `        if (hardState !== null) {
          this.#writeHardState(hardState);
        }
      }
    };
    if (isOneEntry(ops, last)) write();
    else this.#transact(write);
`,
    `      }
    };
    if (isOneEntry(ops, last)) write();
    else this.#transact(write);
    for (const { hardState } of ops) {
      if (hardState === null) continue;
      this.#writeHardState({ term: hardState.term, vote: null });
      this.#writeHardState(hardState);
    }
`,
  ),
  {
    name: "8",
    what: "truncates below commit, as any append that comes late would have it",
    edits: [
      {
        file: "src/raft/log.ts",
        find: "    invariant(from > this.#commit, `a committed entry would be truncated, at index ${from}`);\n",
        replace: "",
      },
      {
        file: "src/raft/log.ts",
        find: "const news = entries.findIndex(({ index, term }) => this.termAt(index) !== term);",
        replace: "const news = entries.length > 0 ? 0 : -1;",
      },
      {
        file: FOLLOWING,
        find: "    if (skipped <= 0) {\n",
        replace: "    if (skipped <= Number.MAX_SAFE_INTEGER) {\n",
      },
    ],
  },
  one(
    "14",
    "keeps the transfer flag when a transfer comes to nothing",
    LEADERSHIP,
    "      if (this.#transferTicks >= electionTicks) this.abortTransfer();\n",
    "",
  ),
  {
    name: "15",
    what: "takes writes while it hands leadership over",
    edits: [
      {
        file: RAFT,
        find: `    if (leading.transferTarget !== null)
      return refuse("transferring", \`leadership is being handed to \${leading.transferTarget}\`);
    if (items.length === 0)`,
        replace: "    if (items.length === 0)",
      },
      {
        file: "src/replica/writes.ts",
        find: ' || raft.role !== "leader" || raft.transferTarget !== null)',
        replace: ' || raft.role !== "leader")',
      },
    ],
  },
  one(
    "16",
    "changes the membership on top of a change that is not committed",
    RAFT,
    "if (this.#log.configurationIndex > this.commit)",
    "if (this.configuration.outgoing.length > 0)",
  ),
  one(
    "17",
    "does not undo a configuration that is truncated",
    "src/raft/log.ts",
    "    this.#configurations.truncate(from);\n",
    "",
  ),
  one(
    "18",
    "promotes a learner that is behind",
    LEADERSHIP,
    '    if (peer?.state === "replicate" && knowsItself && behind <= PROMOTION_LAG_ENTRIES) return null;\n',
    "    if (behind < Number.MAX_SAFE_INTEGER) return null;\n",
  ),
  one(
    "19",
    "keeps its log behind a snapshot, also what conflicts with it",
    "src/raft/log.ts",
    `    this.#terms.restart({ index, term });
    this.#cache.restart(index);
`,
    `    if (this.last > index && this.#configurations.currentIndex <= index) {
      this.#terms.compact(index);
      this.#cache.forgetTo(index);
      this.#commit = index;
      this.#applied = index;
      this.#durable = this.last;
      this.#handed = this.last;
      this.#writes.truncated(asIndex(1));
      this.#undurableBytes = 0;
      return;
    }
    this.#terms.restart({ index, term });
    this.#cache.restart(index);
`,
  ),
  one(
    "20",
    "compacts before the checkpoint is durable",
    "src/storage/log-compaction.ts",
    "Math.min(this.#beyond(stateBytes, now), this.#o.durableApplied())",
    "this.#beyond(stateBytes, now)",
  ),
  one(
    "21",
    "keeps applied index and state in two transactions",
    "src/queue/machine.ts",
    "    this.#saveCounters();\n    this.#commit.run();\n",
    "    this.#commit.run();\n    this.#saveCounters();\n",
  ),
  one(
    "24",
    "reads a damaged entry as the end of the log",
    "src/storage/log-file.ts",
    "    if (what !== null) this.#damage = this.#damageAt(expected, what, hardState.term);\n",
    "",
  ),
  {
    name: "33",
    what: "renames a snapshot over the live state",
    edits: [
      {
        file: "src/storage/sqlite-snapshots.ts",
        find: "    const state = freshStateName(index);\n",
        replace: "    const state = index > 0 ? old : freshStateName(index);\n",
      },
      {
        file: "src/storage/sqlite-snapshots.ts",
        find: '        aside ? { kind: "aside", folder, name: old } : { kind: "remove", folder, names: [old] },\n',
        replace:
          '        aside ? { kind: "aside", folder, name: old } : { kind: "remove", folder, names: old === state ? [] : [old] },\n',
      },
    ],
  },
  one(
    "34",
    "takes busy = 0 for a checkpoint that is done",
    "src/storage/state-checkpointer.ts",
    "  return busy === 0 && log >= 0 && log === checkpointed;",
    "  return busy === 0 && log >= 0 && checkpointed >= 0;",
  ),
  one(
    "snooze",
    "charges a snooze as a failure",
    "src/queue/transitions.ts",
    "      putBack(store, row, SCHEDULED, end.delay_ms, {});",
    "      putBack(store, row, SCHEDULED, end.delay_ms, { retries: Math.min(row.retries + 1, row.max_retries) });",
  ),
  one(
    "cancel",
    "lets a completion win over a cancel that was answered",
    "src/queue/transitions.ts",
    "  if (row.detail === CANCELLING) {\n    finishCancel(store, row, true);",
    '  if (row.detail === CANCELLING && end.kind !== "complete") {\n    finishCancel(store, row, true);',
  ),
  one(
    "queues",
    "serves a claim from queues that it did not name",
    "src/queue/claiming.ts",
    "store.ready.matching(claim.queues, claim.names",
    "store.ready.matching(null, claim.names",
  ),
  one(
    "period",
    "a new leader takes every lease for one that was not heard of for long",
    "src/queue/leases.ts",
    "    this.#expiries.set(id, heardAt + this.#patienceMs());\n    if (timeoutAt === null)",
    "    this.#expiries.set(id, heardAt + this.#patienceMs() / 3);\n    if (timeoutAt === null)",
  ),
  one(
    "news",
    "believes news of a commit though its own log holds another entry there",
    FOLLOWING,
    "    if (this.#log.termAt(prevIndex) !== prevTerm) return;\n    this.#log.commitTo(asIndex(Math.min(commit, prevIndex)));",
    "    this.#log.commitTo(asIndex(Math.min(commit, prevIndex, this.#log.last)));",
  ),
  one(
    "applied",
    "answers a read before its index is applied",
    "src/replica/replica.ts",
    "        if (applier.index >= index) resolve(index);",
    "        if (applier.index >= 0) resolve(index);",
  ),
  one(
    "folder",
    "lets a folder in that was wiped, under the id of the one that was there",
    "src/replica/admission.ts",
    "    if (record?.incarnation === hello.incarnation) {",
    "    if (record !== undefined) {",
  ),
  one(
    "answers",
    "says that it has an answer which it still waits for",
    "src/replica/pending.ts",
    "    for (const seq of this.#bySeq.keys()) return seq;\n    return this.#next;",
    "    return this.#next;",
  ),
  one(
    "order",
    "serves the lowest priority first",
    "src/queue/ready.ts",
    "    for (let priority = 9; priority >= 0; priority--) {\n      const lane = pair.lanes[priority];\n      if (lane === undefined) continue;\n      const row = this.#firstOf",
    "    for (let priority = 0; priority <= 9; priority++) {\n      const lane = pair.lanes[priority];\n      if (lane === undefined) continue;\n      const row = this.#firstOf",
  ),
  one(
    "t2",
    "carries a repeated command out again",
    "src/queue/sessions.ts",
    '    if (answer !== undefined) return { kind: "repeat", answer };\n',
    "",
  ),
  one(
    "q3",
    "forgets idempotency keys",
    "src/queue/idempotency.ts",
    "    this.#insert.run(scope.principal,",
    "    if (Number(expires) > 0) return;\n    this.#insert.run(scope.principal,",
  ),
  one(
    "sticky",
    "votes against a leader that is alive",
    RAFT,
    "    return this.#leader !== null && this.#electionElapsed < this.#o.electionTicks;",
    "    return false;",
  ),
  one(
    "quorum",
    "half of an even number is a quorum",
    "src/raft/quorum.ts",
    "descending[Math.floor(voters.length / 2)]",
    "descending[Math.floor((voters.length - 1) / 2)]",
  ),
  one(
    "stall",
    "leads on though its disk hangs and others are faster",
    RAFT,
    "    if (this.#disk.stalls && this.#abdicate(leading)) return;\n",
    "",
  ),
  one(
    "odd-clock",
    "stands for election with a clock that is the odd one out",
    "src/replica/eligibility.ts",
    "this.#clockWatch.skewed() === null && ",
    "",
  ),
  one(
    "promise",
    "votes for whoever has a log as good as what is left of its damaged one",
    RAFT,
    "this.#coversPromises(end)",
    "true",
  ),
  one(
    "promise-index",
    "takes any log of the term in which its own was damaged for as good as that was",
    RAFT,
    "(end.term === term && end.index >= index)",
    "end.term === term",
  ),
  one(
    "restarted",
    "makes a learner a voter by what its earlier process acknowledged",
    LEADERSHIP,
    'if (peer?.state === "replicate") peer.becomeProbe();',
    "",
  ),
  one(
    "lost",
    "does not say that its log is lost, and is never sent it again",
    FOLLOWING,
    "    if (this.#isInRepair()) {\n",
    "    if (this.#isInRepair() && term < 0) {\n",
  ),
  ...OF_OUR_OWN,
  ...FROM_OUTSIDE,
  ...OF_ONE_LINE,
];
