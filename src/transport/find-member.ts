/** Who is at the address of `--join`: asked once over plain HTTP, before a connection of members is dialled. */
import { asNodeId, type NodeId } from "../raft/types.ts";
import type { DialTls } from "./endpoint.ts";

const ANSWER_MS = 2_000;

export type FoundMember =
  | { readonly kind: "member"; readonly id: NodeId; readonly clusterId: string | null }
  /** Nobody answers, or not yet: worth another try. */
  | { readonly kind: "absent"; readonly why: string }
  /** Not a member, or one that takes no others: trying again does not help. */
  | { readonly kind: "refused"; readonly why: string };

/** `elsewhere`: members whose connections are dialled at another address than this one. */
export async function findMember(
  url: string,
  tls: DialTls,
  elsewhere: ReadonlySet<NodeId>,
): Promise<FoundMember> {
  const ask = (path: string): Promise<Response> =>
    fetch(`${url}${path}`, { tls, redirect: "manual", signal: AbortSignal.timeout(ANSWER_MS) });
  try {
    const health = await ask("/health");
    const body: unknown = await health.json().catch(() => null);
    const { node_id, cluster_id, code, detail } = fields(body);
    if (typeof node_id !== "string" || !/^[a-z0-9-]{1,32}$/.test(node_id)) {
      if (health.status === 503 && typeof code === "string")
        return { kind: "absent", why: "it is starting" };
      const said = typeof detail === "string" ? detail : `it answers ${health.status} to /health`;
      return { kind: "refused", why: `no member of flotilla is there: ${said}` };
    }
    const id = asNodeId(node_id);
    const found: FoundMember = {
      kind: "member",
      id,
      clusterId: typeof cluster_id === "string" ? cluster_id : null,
    };
    if (elsewhere.has(id)) return found;
    const door = await ask("/raft");
    if (door.status === 426) return found;
    if (door.status === 503) return { kind: "absent", why: `${id} is starting or stopping` };
    if (door.status === 404)
      return {
        kind: "refused",
        why: `${id} has a port of its own for members (--peer-port): name that address in --peers`,
      };
    const refusal = fields(await door.json().catch(() => null))["detail"];
    return {
      kind: "refused",
      why: `${id} refuses members: ${typeof refusal === "string" ? refusal.trim() : door.status}`,
    };
  } catch (error) {
    return { kind: "absent", why: error instanceof Error ? error.message : String(error) };
  }
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}
