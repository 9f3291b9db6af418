/** What is to be changed in the state of a backup before a new cluster begins with it, beside what rebirth changes. */
import type { Database } from "bun:sqlite";
import { MACHINE_VERSIONS } from "./commands.ts";
import { openSchema } from "./schema.ts";

/**
 * Members of the new cluster count their boots anew, so what executors of the old one's members ran belongs to an
 * earlier boot, whatever its number: the first boot of a member of that name releases it, free of charge.
 * @throws FatalError when another schema or machine version wrote it
 */
export function forgetBoots(db: Database): void {
  openSchema(db, "{}", MACHINE_VERSIONS);
  db.run("UPDATE tasks SET boot = 0 WHERE boot IS NOT NULL");
}
