/**
 * What members tell each other about claims, leases and workers, outside the log. Whatever comes from
 * another member is checked here before anything uses it: it may be of another version, or damaged.
 */
import type { NodeId } from "../raft/types.ts";
import { CallError } from "../replica/consensus.ts";
import type { Millis } from "../replica/ports.ts";
import type { WorkerInfo, WorkerView } from "./service.ts";
import {
  LIMITS,
  type Claim,
  type ClaimRef,
  type ClusterMemberView,
  type Directive,
  type IdempotencyScope,
  type LeaseRef,
  type LeaseVerdict,
} from "./types.ts";

/** Offers in one call: a re-registration after an election goes in pieces of this size. */
export const OFFERS_PER_CALL = 256;
/** Leases in one heartbeat call. */
export const LEASES_PER_CALL = 10_000;
/** Entries in the name or queue list of a claim. */
const LIST_MAX = 10_000;

export interface OfferBody {
  readonly offers: readonly {
    readonly claim: Claim;
    /** How long its owner will still wait. */
    readonly ttl_ms: Millis;
    /** What the owner last heard that the worker shall do: it outlives a change of leaders. */
    readonly directive: Directive;
    /** Of a member's own executors, if they have said anything yet. */
    readonly info: WorkerInfo | null;
  }[];
}

/**
 * `parked`: waits at the leader; the outcome is learnt by applying it. `known`: this request claimed tasks
 * before; the owner reads them from the state. `full`: the leader holds as many as it can.
 */
export type OfferState = "parked" | "known" | "full";

export interface OfferReply {
  /** Leadership at which the offers are parked. */
  readonly term: number;
  readonly answers: readonly {
    readonly state: OfferState;
    readonly directive: Directive;
    /** Parked, and proposed already or about to be: its owner does well to wait for what comes of it. */
    readonly underWay: boolean;
  }[];
}

export interface RefusedBody extends ClaimRef {
  readonly code: string;
  readonly detail: string;
}

export interface DirectiveBody {
  readonly worker_id: string;
  readonly directive: Directive;
}

export interface HeartbeatBody {
  readonly worker_id: string;
  readonly principal: string;
  readonly leases: readonly LeaseRef[];
  readonly info: WorkerInfo | null;
  readonly directive: Directive;
}

export interface HeartbeatReply {
  readonly verdicts: readonly LeaseVerdict[];
  readonly directive: Directive;
}

type Fields = Readonly<Record<string, unknown>>;

function bad(what: string): CallError {
  return new CallError("bad-message", `malformed message of another member: ${what}`);
}

function fields(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad(what);
  return value as Fields;
}

function text(value: unknown, what: string): string {
  if (typeof value !== "string" || value.length === 0 || value.length > 4 * LIMITS.name)
    throw bad(what);
  return value;
}

function whole(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw bad(what);
  return value;
}

function list(value: unknown, max: number, what: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > max) throw bad(what);
  return value as readonly unknown[];
}

function names(value: unknown, what: string): readonly string[] | null {
  if (value === null) return null;
  return list(value, LIST_MAX, what).map((name) => text(name, what));
}

function parseDirective(value: unknown): Directive {
  if (value === "ok" || value === "quiet" || value === "terminate") return value;
  throw bad("directive");
}

function parseClaim(value: unknown): Claim {
  const claim = fields(value, "claim");
  const local = claim["local"] === null ? null : fields(claim["local"], "local");
  const idem = claim["idem"];
  const max = whole(claim["max"], "max");
  if (max < 1 || max > LIMITS.claimMax) throw bad("max");
  return {
    worker_id: text(claim["worker_id"], "worker_id"),
    request_id: text(claim["request_id"], "request_id"),
    principal: text(claim["principal"], "principal"),
    queues: names(claim["queues"], "queues"),
    names: names(claim["names"], "names"),
    star: claim["star"] === true,
    max,
    local:
      local === null
        ? null
        : { member: text(local["member"], "member") as NodeId, boot: whole(local["boot"], "boot") },
    ...(claim["ahead"] === true ? { ahead: true } : {}),
    ...(idem === undefined ? {} : { idem: parseScope(idem) }),
  };
}

function parseScope(value: unknown): IdempotencyScope {
  const scope = fields(value, "idem");
  return {
    principal: text(scope["principal"], "principal"),
    route: text(scope["route"], "route"),
    key: text(scope["key"], "key"),
    hash: text(scope["hash"], "hash"),
  };
}

export function parseOffers(body: unknown): OfferBody {
  const offers = list(fields(body, "offers")["offers"], OFFERS_PER_CALL, "offers");
  return {
    offers: offers.map((offer) => {
      const { claim, ttl_ms, directive, info } = fields(offer, "offer");
      return {
        claim: parseClaim(claim),
        ttl_ms: Math.min(whole(ttl_ms, "ttl_ms"), LIMITS.waitMs),
        directive: parseDirective(directive),
        info: parseInfo(info),
      };
    }),
  };
}

export function parseOfferReply(body: unknown, asked: number): OfferReply {
  const reply = fields(body, "offer reply");
  const answers = list(reply["answers"], asked, "answers");
  if (answers.length !== asked) throw bad("answers");
  return {
    term: whole(reply["term"], "term"),
    answers: answers.map((answer) => {
      const { state, directive, underWay } = fields(answer, "answer");
      if (state !== "parked" && state !== "known" && state !== "full") throw bad("state");
      return { state, directive: parseDirective(directive), underWay: underWay === true };
    }),
  };
}

export function parseClaimRef(body: unknown): ClaimRef {
  const ref = fields(body, "claim reference");
  return {
    worker_id: text(ref["worker_id"], "worker_id"),
    request_id: text(ref["request_id"], "request_id"),
    principal: text(ref["principal"], "principal"),
  };
}

export function parseRefused(body: unknown): RefusedBody {
  const { code, detail } = fields(body, "refusal");
  if (typeof code !== "string" || typeof detail !== "string") throw bad("refusal");
  return { ...parseClaimRef(body), code, detail };
}

export function parseDirectiveBody(body: unknown): DirectiveBody {
  const { worker_id, directive } = fields(body, "directive");
  return { worker_id: text(worker_id, "worker_id"), directive: parseDirective(directive) };
}

function parseInfo(value: unknown): WorkerInfo | null {
  if (value === null || value === undefined) return null;
  const info = fields(value, "info");
  return {
    member: text(info["member"], "member"),
    slots: whole(info["slots"], "slots"),
    names: names(info["names"], "names") ?? [],
    stuck: whole(info["stuck"], "stuck"),
    kills: whole(info["kills"], "kills"),
    restarts: whole(info["restarts"], "restarts"),
  };
}

export function parseHeartbeat(body: unknown): HeartbeatBody {
  const beat = fields(body, "heartbeat");
  return {
    worker_id: text(beat["worker_id"], "worker_id"),
    principal: text(beat["principal"], "principal"),
    leases: list(beat["leases"], LEASES_PER_CALL, "leases").map((lease) => {
      const { task_id, attempt, fence } = fields(lease, "lease");
      return {
        task_id: text(task_id, "task_id"),
        attempt: whole(attempt, "attempt"),
        fence: whole(fence, "fence"),
      };
    }),
    info: parseInfo(beat["info"]),
    directive: parseDirective(beat["directive"]),
  };
}

export function parseHeartbeatReply(body: unknown, asked: number): HeartbeatReply {
  const reply = fields(body, "heartbeat reply");
  const verdicts = list(reply["verdicts"], asked, "verdicts");
  if (verdicts.length !== asked) throw bad("verdicts");
  return {
    verdicts: verdicts.map((verdict) => {
      if (verdict === "ok" || verdict === "cancel" || verdict === "lost") return verdict;
      throw bad("verdict");
    }),
    directive: parseDirective(reply["directive"]),
  };
}

/** Answers about people's views come from a member that runs this code or a newer one: the shape is checked, not each field. */
export function parseWorkers(body: unknown, max: number): readonly WorkerView[] {
  return list(body, max, "workers").map((worker) => {
    text(fields(worker, "worker")["id"], "id");
    return worker as WorkerView;
  });
}

export function parseMembers(body: unknown): readonly ClusterMemberView[] {
  return list(body, 1_000, "members").map((member) => {
    text(fields(member, "member")["id"], "id");
    // Leaders of older builds do not say why a learner waits, nor whose place it takes.
    const { waiting = null, replaces = null } = fields(member, "member");
    return { ...(member as ClusterMemberView), waiting, replaces } as ClusterMemberView;
  });
}
