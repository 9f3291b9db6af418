/**
 * Names of the files that a snapshot is, on its way: `snapshot-ID.db` is a copy to be sent, `incoming-ID.part`
 * one that is being received. Neither outlives the process: what a start finds of them is swept away.
 */
const LEFT_OVER = /^(?:snapshot|incoming)-\d+-[0-9a-f]+\.(?:db|part)(?:-(?:journal|wal|shm))?$/;
const ID = /^\d{1,16}-[0-9a-f]{8,32}$/;

/** Identities come from other members and become file names. */
export function isSnapshotId(id: string): boolean {
  return ID.test(id);
}

export function freshSnapshotId(index: number): string {
  return `${index}-${crypto.getRandomValues(new Uint8Array(8)).toHex()}`;
}

export function copyName(id: string): string {
  return `snapshot-${id}.db`;
}

export function incomingName(id: string): string {
  return `incoming-${id}.part`;
}

export function isLeftOver(name: string): boolean {
  return LEFT_OVER.test(name);
}
