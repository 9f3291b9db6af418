/** Short hands for tests of the service: tasks, claims and contexts with defaults. */
import type { Claim, NewTask } from "../../src/queue/types.ts";
import type { WriteContext } from "../../src/queue/service.ts";
import type { Member } from "./fake-consensus.ts";
import { idAt, newTask } from "./machine-harness.ts";

export const PRINCIPAL = "tester";
export const context: WriteContext = { principal: PRINCIPAL, idempotency: null };

/** Wall-clock time at which virtual time begins. */
const EPOCH = 1_800_000_000_000;

let made = 0;
let requests = 0;

export function task(more: Partial<NewTask> = {}): NewTask {
  made += 1;
  return newTask(idAt(EPOCH, made), more);
}

export function claimOf(worker: string, more: Partial<Claim> = {}): Claim {
  requests += 1;
  return {
    worker_id: worker,
    request_id: `r${requests}`,
    principal: PRINCIPAL,
    queues: null,
    names: null,
    star: false,
    max: 1,
    local: null,
    ...more,
  };
}

/** A submit of one task; resolves with its id. */
export async function submitOne(member: Member, more: Partial<NewTask> = {}): Promise<string> {
  const { ids } = await member.queue.submit([task(more)], context);
  const [id] = ids;
  if (id === undefined) throw new Error("a submit was answered without an id");
  return id;
}
