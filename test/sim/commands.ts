/**
 * The commands of an entry: many rules look at them, so they are read once for all. Nobody may change them. And the name
 * of what a member asked for, and which of them a rule has judged.
 */
import { decodeCommand } from "../../src/queue/command-codec.ts";
import type { Command } from "../../src/queue/commands.ts";
import type { CommittedEntry } from "../../src/replica/ports.ts";

/** Rules look at one entry after the other. */
let newest: {
  readonly requests: CommittedEntry["requests"];
  readonly commands: readonly Command[];
} | null = null;

export function commandsOf({ requests }: Pick<CommittedEntry, "requests">): readonly Command[] {
  if (newest?.requests !== requests)
    newest = { requests, commands: requests.map(({ command }) => decodeCommand(command)) };
  return newest.commands;
}

let named: { readonly command: Uint8Array; readonly digest: string } | null = null;

/** What a member asked for in one of its starts. More than one rule counts it, one after the other: it is hashed once. */
export function nameOfAsked(member: string, boot: number, command: Uint8Array): string {
  if (named?.command !== command) named = { command, digest: String(Bun.hash(command)) };
  return `${member} ${boot} ${named.digest}`;
}

/** What a rule has judged: a command that is logged again is answered as the first time, whatever is true by then. */
export class Judged {
  readonly #numbers = new Set<string>();

  /** False: it was judged before. */
  add({ member, boot, seq }: CommittedEntry["requests"][number]): boolean {
    const number = `${member} ${boot} ${seq}`;
    if (this.#numbers.has(number)) return false;
    this.#numbers.add(number);
    return true;
  }
}
