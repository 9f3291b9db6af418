/** A start that finds the disk full: nothing is wrong with the files, and another folder would not be this member. */
import { FatalError, isNoRoom } from "../replica/ports.ts";

/** The sentence for `error`, if it says that there is no room where `path` is; else null. */
export function noRoomAtStart(path: string, error: unknown): FatalError | null {
  const outside = error instanceof Error && "code" in error && error.code === "ENOSPC";
  if (!outside && !isNoRoom(error)) return null;
  return new FatalError(
    `the disk of ${path} is full: make room on it, then start this member again`,
  );
}
