/** What the API is built from. The composition root fills it in. */
import type { Clock, Log, Random } from "../replica/ports.ts";
import type { MemberChanges } from "../queue/cluster-members.ts";
import type { TaskQueue } from "../queue/service.ts";
import type { TokenRecord } from "./auth.ts";

export interface BackupFile {
  readonly manifest: { readonly cluster_id: string; readonly index: number };
  readonly stream: ReadableStream<Uint8Array>;
}

export interface ApiDeps {
  readonly queue: TaskQueue;
  readonly members: MemberChanges;
  /** `--id`. */
  readonly nodeId: string;
  /** Null before the cluster is founded, or joined. */
  clusterId(): string | null;
  /** `--advertise`, an http(s) URL. */
  readonly advertise: string;
  /** This process itself ends TLS, so the URLs of its requests begin with https://. */
  readonly https?: boolean;
  /** Empty: open, and browsers are let in under loopback and `advertise` only. */
  readonly tokens: readonly TokenRecord[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Called before each answer is made: thousands may be due at once, and what is due for others runs in between. */
  readonly answering?: () => void;
  /** Of this build, for `/health` and the documentation. */
  readonly version: string;
  /** A backup of this member's state; null while another one is being made or read. `signal`: nobody wants it any more. */
  readonly backup: (signal: AbortSignal) => Promise<BackupFile | null>;
  /** True from the first shutdown signal on: `/health/ready` says no. */
  draining(): boolean;
}
