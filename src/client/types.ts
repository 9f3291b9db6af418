/** Shapes that the client takes and gives, all of them derived from the API's schemas; no code is imported. */
import type { Static } from "elysia";
import type { ListQuery, MODELS, Submit } from "../api/schema.ts";

type Model<Name extends keyof typeof MODELS> = Static<(typeof MODELS)[Name]>;

/** A task as the API answers it; times are RFC 3339. */
export type Task = Model<"Task">;
export type Stats = Model<"Stats">;
export type ClusterView = Model<"Cluster">;
/** What a worker reads of the cluster's settings. (Their schema is a record, whose members have no types.) */
export interface Settings {
  /** Milliseconds. */
  readonly lease: number;
}

/** Everything of a submit but its name and payload, named as in the API. `run_at` may be a Date. */
export type EnqueueOptions = Omit<Submit, "name" | "payload" | "run_at"> & {
  run_at?: string | Date | null;
};
/** One task of `enqueueMany`. */
export type TaskSpec = EnqueueOptions & { name: string; payload?: unknown };

/** Filters of a list; `payload` maps dotted paths to values. */
export type ListFilter = Omit<
  Static<typeof ListQuery>,
  "cursor" | "limit" | "created_after" | "created_before"
> & {
  created_after?: string | Date;
  created_before?: string | Date;
  payload?: Readonly<Record<string, string | number | boolean>>;
  /** Tasks a request, 1 to 1,000; the iteration goes on beyond it. */
  page_size?: number;
};

export type ClaimRequest = Model<"Claim">;
export type ClaimedTask = Task & { lease: NonNullable<Task["lease"]> };
export type Directive = Model<"HeartbeatAnswer">["directive"];
export interface ClaimAnswer {
  readonly tasks: readonly ClaimedTask[];
  readonly directive: Directive;
}
export type HeartbeatRequest = Model<"Heartbeat">;
export type HeartbeatLease = HeartbeatRequest["leases"][number];
export type HeartbeatAnswer = Model<"HeartbeatAnswer">;
export type LeaseVerdict = HeartbeatAnswer["leases"][number]["status"];
export type CompletedAnswer = Model<"Completed">;
export type CompletionStatus = CompletedAnswer["items"][number]["status"];
export type FailRequest = Model<"Fail">;
export type LeaseRef = Omit<HeartbeatLease, "progress">;
