/**
 * K1, T2: a member that says of a command that nothing happened is right: it is never logged, whoever leads. Counted by what was
 * asked, since who was refused may ask for the same once more. A copy that the network makes counts as asked, too: one answer is about
 * one copy, and no connection of a real member makes any (duplicates stand for what is sent again, which a member counts).
 */
import type { CommittedEntry } from "../../../src/replica/ports.ts";
import { nameOfAsked } from "../commands.ts";
import type { SimNode } from "../node.ts";
import type { Simulation } from "../simulation.ts";
import type { Invariant } from "./invariant.ts";

interface Asked {
  submitted: number;
  refused: number;
  /** Numbers under which it is logged. */
  readonly logged: Set<number>;
}

export class RefusedForGood implements Invariant {
  readonly #sim: Simulation;
  /** By member, start and what was asked. */
  readonly #asked = new Map<string, Asked>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  submitted({ id, disk }: SimNode, command: Uint8Array): void {
    this.#of(id, disk.boot, command).submitted += 1;
  }

  refused({ id, disk }: SimNode, command: Uint8Array, reason: string): void {
    if (reason === "outcome-unknown") return;
    const asked = this.#of(id, disk.boot, command);
    asked.refused += 1;
    this.#check(id, asked);
  }

  logged({ requests }: CommittedEntry): void {
    for (const { member, boot, seq, command } of requests) {
      const asked = this.#asked.get(nameOfAsked(member, boot, command));
      if (asked === undefined) continue;
      asked.logged.add(seq);
      this.#check(member, asked);
    }
  }

  #of(member: string, boot: number, command: Uint8Array): Asked {
    const key = nameOfAsked(member, boot, command);
    const asked = this.#asked.get(key) ?? { submitted: 0, refused: 0, logged: new Set() };
    this.#asked.set(key, asked);
    return asked;
  }

  #check(member: string, { submitted, refused, logged }: Asked): void {
    if (logged.size > submitted - refused)
      this.#sim.fail(
        "K1",
        `${member} asked for one thing ${submitted} times and was told ${refused} times that it did not happen; it is logged ${logged.size} times`,
      );
  }
}
