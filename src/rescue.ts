/**
 * `bun run src/rescue.ts`: when a majority of the members is gone for good, makes a new cluster of one out of
 * the folder of a survivor. Offline, guarded and loud: what the lost members alone had acknowledged is lost.
 * See docs/lost-quorum.md.
 */
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { parseOrigin } from "./config/addresses.ts";
import { ConfigError } from "./config/error.ts";
import { asNodeId, type Configuration, type NodeId } from "./raft/types.ts";
import { FatalError } from "./replica/ports.ts";
import { rebirth } from "./rebirth.ts";
import { aliveBecause, allFurthest, isFurther } from "./rescue/judgement.ts";
import {
  type FolderSurvey,
  type LiveSurvey,
  refuseNoFolder,
  surveyFolder,
  surveyMember,
} from "./rescue/survey.ts";
import { readCurrent } from "./storage/current-file.ts";
import { openDataFolder } from "./storage/data-folder.ts";
import { systemRandom as random } from "./system/random.ts";

const HELP = `flotilla rescue: goes on with a survivor when a majority of the members is gone for good

usage:
  bun run src/rescue.ts look WHERE …
      shows how far each survivor is; WHERE is a data folder (of a member that is stopped), or the URL of one
      that runs. Changes nothing.
  bun run src/rescue.ts go --data FOLDER --abandon CLUSTER [--compare WHERE]… [--advertise URL]
      makes FOLDER the only member of a new cluster. CLUSTER is the id of the old one, as \`look\` shows it.

flags of go:
  --data FOLDER       the survivor's data folder; its process must be stopped
  --abandon CLUSTER   id of the cluster that is given up for ever
  --compare WHERE     another survivor: refused when it is further than FOLDER (repeatable)
  --though-behind     go on with FOLDER although another survivor is further
  --peer-ca FILE      certificates (PEM) that sign those of the other members, as at their start
  --advertise URL     the member's address from now on (default: the one in its log)

FLOTILLA_TOKEN: a viewer's token, where members that run ask for one.
`;

/** Exit codes: 0 done, 1 it failed on the way, 2 refused. */
const EXIT = { refused: 2, failed: 1 } as const;

class Refused extends Error {
  override name = "Refused";
}

function say(line = ""): void {
  process.stdout.write(`${line}\n`);
}

async function main(): Promise<void> {
  const { values, positionals } = parse();
  const [command, ...where] = positionals;
  if (values.help === true || command === undefined) {
    process.stdout.write(HELP);
    return;
  }
  const ca = values["peer-ca"];
  if (ca !== undefined) how.tls = { ca: await readText("peer-ca", ca) };
  if (command === "look") return look(where);
  if (command !== "go") throw new Refused(`${command} is no command: look, or go (see --help).`);
  if (where.length > 0) throw new Refused(`go takes flags only: what is ${where.join(" ")}?`);
  const { data, abandon = null, compare = [], advertise = null } = values;
  if (data === undefined) throw new Refused("--data is needed: the survivor's data folder.");
  await go(resolve(data), {
    abandon,
    compare,
    advertise: advertise === null ? null : parseOrigin("advertise", advertise),
    thoughBehind: values["though-behind"] === true,
  });
}

function parse() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        help: { type: "boolean", short: "h" },
        data: { type: "string" },
        abandon: { type: "string" },
        compare: { type: "string", multiple: true },
        advertise: { type: "string" },
        "though-behind": { type: "boolean" },
        "peer-ca": { type: "string" },
      },
    });
  } catch (error) {
    throw new Refused(`${error instanceof Error ? error.message : String(error)} (see --help).`);
  }
}

/** How members are asked over HTTP. */
const how: { readonly token: string | null; tls: { readonly ca?: string } } = {
  token: process.env["FLOTILLA_TOKEN"] ?? null,
  tls: {},
};

async function readText(flag: string, path: string): Promise<string> {
  try {
    return await Bun.file(path).text();
  } catch (error) {
    throw new Refused(
      `--${flag} ${path} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

const isUrl = (where: string): boolean => /^https?:\/\//.test(where);

type Seen =
  | { readonly where: string; readonly folder: FolderSurvey }
  | { readonly where: string; readonly live: LiveSurvey }
  | { readonly where: string; readonly nothing: string };

async function see(where: string): Promise<Seen> {
  if (isUrl(where)) {
    const live = await surveyMember(parseOrigin("join", where), how);
    return live === null ? { where, nothing: "nobody answers" } : { where, live };
  }
  try {
    // Not even a lock in a folder that is none of a member's, nor one that was not there.
    refuseNoFolder(where);
    const folder = openDataFolder(where);
    try {
      return { where, folder: surveyFolder(folder.path) };
    } finally {
      folder.release();
    }
  } catch (error) {
    if (error instanceof FatalError) return { where, nothing: error.message };
    throw error;
  }
}

function describe(seen: Seen): string {
  if ("nothing" in seen) return `${seen.where}: ${seen.nothing}`;
  if ("live" in seen) {
    const { id, healthy, reason, last } = seen.live;
    const state = healthy ? "healthy: it is in touch with a leader" : (reason ?? "unhealthy");
    return `${seen.where}: ${id} runs, ${state}; log up to ${last?.index ?? "? (FLOTILLA_TOKEN?)"}`;
  }
  const { id, clusterId, last, configuration } = seen.folder;
  const members = Object.keys(configuration?.members ?? {}).join(", ") || "nobody";
  return `${seen.where}: ${id} of cluster ${clusterId ?? "none"}; log up to index ${last.index} of term ${last.term}; members ${members}`;
}

async function look(where: readonly string[]): Promise<void> {
  if (where.length === 0) throw new Refused("look needs folders or URLs to look at.");
  const all = await Promise.all(where.map(see));
  for (const seen of all) say(describe(seen));
  const folders = all.flatMap((seen) => ("folder" in seen ? [seen] : []));
  const best = allFurthest(folders, ({ folder }) => folder.last);
  if (folders.length > 1) {
    const named = best.map(({ where: at, folder }) => `${folder.id} in ${at}`);
    say(named.length > 1 ? `equally far: ${named.join(", ")}` : `furthest: ${named.join()}`);
  }
  const unseen = all.filter((seen) => "nothing" in seen).map(({ where: at }) => at);
  if (unseen.length > 0) throw new Refused(`${unseen.join(", ")} cannot be looked at.`);
}

interface GoOptions {
  readonly abandon: string | null;
  readonly compare: readonly string[];
  readonly advertise: string | null;
  readonly thoughBehind: boolean;
}

async function go(data: string, options: GoOptions): Promise<void> {
  const folder = openDataFolder(data);
  try {
    const own = surveyFolder(folder.path);
    const { clusterId, configuration } = own;
    if (clusterId === null || configuration === null || own.last.index === 0)
      throw new Refused(`${data} holds no cluster: there is nothing to rescue.`);
    if (options.abandon !== clusterId)
      throw new Refused(
        `${data} belongs to cluster ${clusterId}: to give that one up for ever, say --abandon ${clusterId}.`,
      );
    await refuseWhileAlive(own.id, configuration);
    await refuseBehind(own, data, options);

    const others = Object.keys(configuration.members).filter((id) => id !== own.id);
    const current = readCurrent(folder.path);
    if (current === null) throw new Refused(`${data} holds no state: nothing can go on with it.`);
    const url = options.advertise ?? configuration.members[own.id]?.url ?? null;
    if (url === null)
      throw new Refused("--advertise is needed: the log has no address of this member.");
    say("WARNING: what the lost members alone had acknowledged is lost for ever.");
    say(`giving up cluster ${clusterId} with ${others.join(", ") || "nobody else"} …`);
    const now = Date.now();
    const born = rebirth({
      folder: folder.path,
      id: own.id,
      advertise: url,
      source: join(folder.path, current),
      clusterId: random.uuid(now),
      now,
      origin: {
        kind: "rescue",
        clusterId,
        note: `rescued by hand at ${new Date(now).toISOString()} from the folder of ${own.id}; left behind: ${others.join(", ") || "nobody"}`,
      },
    });
    say(`${own.id} is the only member of the new cluster ${born.clusterId}.`);
    say(
      `Everything up to index ${born.from.index} of term ${born.from.term} is in it; it goes on at ${born.index}.`,
    );
    say();
    say("What to do now:");
    say(`  1. start ${own.id} as before, but without --peers and --join (with --secret)`);
    say("  2. give every other member an empty folder, and start it with --join");
    say(
      "     folders of the old cluster are refused for ever; keep copies until you need them no more",
    );
  } finally {
    folder.release();
  }
}

/** A cluster that has a leader, or could have one, needs no rescue and must not get one. */
async function refuseWhileAlive(self: NodeId, configuration: Configuration): Promise<void> {
  const others = Object.entries(configuration.members).filter(([id]) => id !== self);
  const answers = await Promise.all(
    others.map(async ([id, { url }]) => {
      const live = await surveyMember(url, how);
      // Somebody else at its address may be in touch with a leader all the same; of a quorum it is no part.
      const known = live?.id === id || live?.healthy === true ? live : null;
      return { id: asNodeId(id), url, live: known };
    }),
  );
  const why = aliveBecause(self, configuration, answers);
  if (why !== null) throw new Refused(why);
}

async function refuseBehind(
  own: FolderSurvey,
  data: string,
  { compare, thoughBehind }: GoOptions,
): Promise<void> {
  say(describe({ where: data, folder: own }));
  for (const where of compare) {
    const seen = await see(where);
    say(describe(seen));
    if ("nothing" in seen) throw new Refused(`--compare ${where} cannot be looked at.`);
    if ("folder" in seen && seen.folder.clusterId !== own.clusterId)
      throw new Refused(`${where} belongs to another cluster, ${seen.folder.clusterId}.`);
    const further =
      "folder" in seen
        ? isFurther(seen.folder.last, own.last)
        : seen.live.last !== null && seen.live.last.index > own.last.index;
    if (further && !thoughBehind)
      throw new Refused(
        `${where} is further than ${data}: go on with that one, or say --though-behind.`,
      );
  }
}

try {
  await main();
} catch (error) {
  const known =
    error instanceof Refused || error instanceof FatalError || error instanceof ConfigError;
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`${known ? message : (error instanceof Error && error.stack) || message}\n`);
  process.exit(known ? EXIT.refused : EXIT.failed);
}
