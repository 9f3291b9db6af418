/**
 * Membership: its bytes in the log, and how a change turns one configuration into the next.
 *
 * A change that touches voters goes through a joint configuration (Raft dissertation, 4.3), always, also
 * when it is a single one: one rule instead of two. A change of learners or addresses needs no joint step.
 */
import { must } from "./invariant.ts";
import { isJoint } from "./quorum.ts";
import {
  asNodeId,
  type Configuration,
  type ConfigurationChange,
  type Entry,
  type MemberRecord,
  type NodeId,
} from "./types.ts";

export const EMPTY_CONFIGURATION: Configuration = {
  voters: [],
  outgoing: [],
  learners: [],
  learnersNext: [],
  members: {},
};

/** Members of one cluster. Keeps quorums, and the leader's fan-out, at a size that makes sense. */
export const MEMBERS_MAX = 64;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** JSON, fields in a fixed order and ids sorted, so that equal configurations are equal bytes. */
export function encodeConfiguration(configuration: Configuration): Uint8Array {
  const { voters, outgoing, learners, learnersNext, members } = configuration;
  const ids = Object.keys(members).sort();
  return encoder.encode(
    JSON.stringify({
      voters: sorted(voters),
      outgoing: sorted(outgoing),
      learners: sorted(learners),
      learnersNext: sorted(learnersNext),
      members: Object.fromEntries(
        ids.map((id) => {
          const { url, incarnation, voter, replaces } = recordOf(members, id);
          return [id, { url, incarnation, voter, replaces }];
        }),
      ),
    }),
  );
}

/**
 * The configuration in a `config` entry, or under the key `configuration` of a `bootstrap` entry.
 * @throws Error naming the entry when it is of another kind or cannot be read: it must not be skipped.
 */
export function decodeConfigurationEntry(entry: Entry): Configuration {
  const broken = (why: string): Error =>
    new Error(`entry ${entry.index} (term ${entry.term}) is no configuration: ${why}`);
  let body: unknown;
  switch (entry.kind) {
    case "noop":
    case "command":
      throw broken(`its kind is ${entry.kind}`);
    case "config":
    case "bootstrap":
      try {
        body = JSON.parse(decoder.decode(entry.data));
      } catch (error) {
        throw broken(String(error));
      }
  }
  if (entry.kind === "bootstrap" && isRecord(body)) body = body["configuration"];
  if (!isRecord(body)) throw broken("its JSON is no object");
  const members = body["members"];
  if (!isRecord(members)) throw broken("members is no object");
  const records: Record<string, MemberRecord> = {};
  for (const [id, record] of Object.entries(members)) {
    if (!isRecord(record)) throw broken(`member ${id} is no object`);
    const { url, incarnation, voter, replaces } = record;
    if (typeof url !== "string" || typeof incarnation !== "string")
      throw broken(`member ${id} lacks its url or incarnation`);
    records[id] = {
      url,
      incarnation,
      ...(voter === true ? { voter } : {}),
      ...(typeof replaces === "string" ? { replaces: asNodeId(replaces) } : {}),
    };
  }
  const ids = (key: string): NodeId[] => {
    const list: unknown = body[key];
    if (!Array.isArray(list)) throw broken(`${key} is no list`);
    return list.map((id: unknown) => {
      if (typeof id !== "string") throw broken(`${key} holds something that is no id`);
      return asNodeId(id);
    });
  };
  return {
    voters: ids("voters"),
    outgoing: ids("outgoing"),
    learners: ids("learners"),
    learnersNext: ids("learnersNext"),
    members: records,
  };
}

export type ChangedConfiguration =
  | { readonly ok: true; readonly configuration: Configuration }
  | { readonly ok: false; readonly detail: string };

/** The configuration to append for `changes`, made together; or a sentence saying what is wrong with them. */
export function applyChanges(
  before: Configuration,
  changes: readonly ConfigurationChange[],
): ChangedConfiguration {
  const no = (detail: string): ChangedConfiguration => ({ ok: false, detail });
  if (isJoint(before)) return no("the configuration is joint; it must be left first");
  if (changes.length === 0) return no("there is nothing to change");
  if (new Set(changes.map(({ id }) => id)).size < changes.length)
    return no("one member is named twice");
  const voters = new Set(before.voters);
  const learners = new Set(before.learners);
  const learnersNext = new Set<NodeId>();
  const members: Record<string, MemberRecord> = { ...before.members };
  const removed = new Set<NodeId>();
  for (const change of changes) {
    const { op, id } = change;
    const known = voters.has(id) || learners.has(id);
    if (op === "add-learner" ? known : !known) {
      return no(known ? `${id} is a member already` : `${id} is not a member`);
    }
    switch (change.op) {
      case "add-learner":
        learners.add(id);
        members[id] = change.record;
        break;
      case "promote": {
        if (!learners.delete(id)) return no(`${id} is a voter already`);
        voters.add(id);
        // What was wished of the learner has come true.
        const { url, incarnation } = recordOf(members, id);
        members[id] = { url, incarnation };
        break;
      }
      case "demote":
        if (!voters.delete(id)) return no(`${id} is no voter`);
        learnersNext.add(id);
        break;
      case "remove":
        voters.delete(id);
        learners.delete(id);
        removed.add(id);
        break;
      case "update":
        members[id] = change.record;
        break;
    }
  }
  if (voters.size === 0) return no("no voter would be left");
  // Whoever comes back under the id of one that goes is somebody else, whom nobody was told to replace.
  for (const [id, { replaces, ...record }] of Object.entries(members))
    if (replaces !== undefined && removed.has(replaces)) members[id] = record;
  if (Object.keys(members).length > MEMBERS_MAX)
    return no(`a cluster has ${MEMBERS_MAX} members at most`);
  const joint = voters.size !== before.voters.length || before.voters.some((id) => !voters.has(id));
  // A voter that goes is still asked while the configuration is joint, so its record stays until then.
  for (const id of removed) if (!joint || !before.voters.includes(id)) delete members[id];
  return {
    ok: true,
    configuration: {
      voters: sorted([...voters]),
      outgoing: joint ? before.voters : [],
      learners: sorted([...learners]),
      learnersNext: sorted([...learnersNext]),
      members,
    },
  };
}

/** The new half alone; members that are in neither list any more lose their record. */
export function leaveJoint(joint: Configuration): Configuration {
  const voters = sorted(joint.voters);
  const learners = sorted([...joint.learners, ...joint.learnersNext]);
  const members: Record<string, MemberRecord> = {};
  for (const id of [...voters, ...learners]) members[id] = recordOf(joint.members, id);
  return { voters, outgoing: [], learners, learnersNext: [], members };
}

/** Everyone who receives the log, each once. */
export function allMembers(configuration: Configuration): readonly NodeId[] {
  const { voters, outgoing, learners, learnersNext } = configuration;
  return sorted([...new Set([...voters, ...outgoing, ...learners, ...learnersNext])]);
}

function recordOf(members: Configuration["members"], id: string): MemberRecord {
  return must(members[id], `there is a record of ${id}`);
}

function sorted(ids: readonly NodeId[]): readonly NodeId[] {
  return [...ids].sort();
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
