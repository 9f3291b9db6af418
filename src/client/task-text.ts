/** A submit as JSON text, made once: the payload is not serialised again however often the submit is repeated. */
import { FlotillaError } from "./error.ts";
import type { EnqueueOptions } from "./types.ts";

/** Tasks in one bulk request (a limit of the API). */
export const BULK_TASKS_MAX = 1_000;
/** Half of what a body may have: a member takes its time over each request, and the others wait. */
export const BULK_BYTES_MAX = 4 * 1024 * 1024;
/** What surrounds `rest`: the id, its name, braces, a comma; an id of the caller's may be longer, which is refused. */
const AROUND_BYTES = 64;
/** 1,000 such tasks are far from filling a request, however they are counted. */
const SHORT_LENGTH = 1_024;
/** What a request's body may have (8 MiB), less what surrounds a task. */
const SUBMIT_MAX_BYTES = 8 * 1024 * 1024 - 1_024;

export interface TaskText {
  readonly id: string;
  /** The client made the id, not the caller. */
  readonly minted: boolean;
  /** The members behind the id: JSON without its opening brace. */
  readonly rest: string;
}

/** @throws FlotillaError invalid-payload or body-too-large */
export function taskText(
  name: string,
  payload: unknown,
  options: EnqueueOptions | undefined,
  mint: () => string,
): TaskText {
  const id = options?.id;
  const members = optionMembers(name, options);
  const body = payload === undefined ? undefined : stringify(payload, "the payload");
  if (payload !== undefined && body === undefined)
    throw new FlotillaError("invalid-payload", `the payload is not JSON: a ${typeof payload}`);
  const payloadMember = body === undefined ? "" : `"payload":${body}`;
  const both = members !== "" && payloadMember !== "" ? "," : "";
  const rest = `${members}${both}${payloadMember}}`;
  const minted = id === undefined;
  const task = { id: minted ? mint() : id, minted, rest };
  // Three bytes a character at most: most texts need no count.
  if (rest.length * 3 > SUBMIT_MAX_BYTES && Buffer.byteLength(rest) > SUBMIT_MAX_BYTES) {
    const message = `the task has ${Buffer.byteLength(rest)} bytes; a request may have ${SUBMIT_MAX_BYTES}`;
    throw new FlotillaError("body-too-large", message, { status: 413 });
  }
  return task;
}

/** The name submitted last, and what it is as a member: most programs submit by few. */
let lastName: string | null = null;
let lastNameMember = "";

function nameMember(name: string): string {
  if (name !== lastName) {
    lastName = name;
    lastNameMember = `"name":${JSON.stringify(name)}`;
  }
  return lastNameMember;
}

/** All but the id and the payload, without braces; empty when there are none. */
function optionMembers(name: string, options: EnqueueOptions | undefined): string {
  if (options === undefined && typeof name === "string") return nameMember(name);
  // Whatever a caller without types put there: the name and the payload are the arguments.
  const members = { ...options, id: undefined, name, payload: undefined };
  return (stringify(members, "the options") ?? "{}").slice(1, -1);
}

export function submitText({ id, minted, rest }: TaskText): string {
  return `{"id":${minted ? `"${id}"` : JSON.stringify(id)}${rest === "}" ? "" : ","}${rest}`;
}

export function bulkBody(tasks: readonly TaskText[]): string {
  return `{"tasks":[${tasks.map(submitText).join(",")}]}`;
}

/** In a request's body, at most: short texts are not counted, but taken for three bytes a character. */
export function submitBytes({ rest }: TaskText): number {
  const isShort = rest.length <= SHORT_LENGTH;
  return AROUND_BYTES + (isShort ? rest.length * 3 : Buffer.byteLength(rest));
}

function stringify(value: unknown, what: string): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    const message = `${what} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`;
    throw new FlotillaError("invalid-payload", message, { cause });
  }
}
