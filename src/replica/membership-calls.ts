/** What members ask each other about the membership: the calls, and the shapes of what they bear. */
import type { LogIndex, NodeId } from "../raft/types.ts";
import type { Calls } from "./calls.ts";
import { CallError } from "./consensus.ts";
import type { Membership, MemberRequest } from "./membership.ts";
import type { Millis } from "./ports.ts";

/** The leader's word that the folder was removed from `cluster`, at `index`. Incarnation null: an earlier build's word. */
export interface Farewell {
  readonly cluster: string;
  readonly index: LogIndex;
  readonly incarnation: string | null;
}

export function serveMembership(
  calls: Calls,
  membership: Membership,
  transferMs: Millis,
  farewell: (word: Farewell) => void,
): void {
  calls.serve("members.add", (body) => membership.add(parseMemberRequest(body)));
  calls.serve("members.remove", async (body) => {
    await membership.remove(parseMemberId(body));
    return null;
  });
  calls.serve("members.transfer", async (body) => {
    await membership.transfer(parseMemberId(body), transferMs);
    return null;
  });
  calls.serve("members.removed", async (body) => {
    farewell(parseFarewell(body));
    return null;
  });
}

/** What another member asks for, checked. @throws CallError bad-message */
function parseMemberRequest(body: unknown): MemberRequest {
  const { id, url, incarnation, voter, replaces } = fields(body);
  if (typeof url !== "string" || url.length > 2_048) throw bad("url");
  return {
    id: parseId(id),
    url,
    incarnation: incarnation === null || incarnation === undefined ? null : text(incarnation),
    voter: voter === true,
    replaces: replaces === null || replaces === undefined ? null : parseId(replaces),
  };
}

/** The member that a removal or a transfer names. @throws CallError bad-message */
function parseMemberId(body: unknown): NodeId {
  return parseId(fields(body)["id"]);
}

/** @throws CallError bad-message */
function parseFarewell(body: unknown): Farewell {
  const { cluster, index, incarnation } = fields(body);
  if (typeof index !== "number" || !Number.isSafeInteger(index)) throw bad("index");
  return {
    cluster: text(cluster),
    index: index as LogIndex,
    incarnation: incarnation === undefined ? null : text(incarnation),
  };
}

function fields(body: unknown): Readonly<Record<string, unknown>> {
  if (typeof body !== "object" || body === null || Array.isArray(body)) throw bad("body");
  return body as Readonly<Record<string, unknown>>;
}

function parseId(value: unknown): NodeId {
  if (typeof value !== "string" || !/^[a-z0-9-]{1,32}$/.test(value)) throw bad("id");
  return value as NodeId;
}

function text(value: unknown): string {
  if (typeof value !== "string" || value === "" || value.length > 256) throw bad("text");
  return value;
}

function bad(what: string): CallError {
  return new CallError("bad-message", `malformed message of another member: ${what}`);
}
