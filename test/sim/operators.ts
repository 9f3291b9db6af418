/**
 * Operators: they add members, remove them (the leader too, and one that is cut off), replace them, bring removed
 * ones back with an empty folder, lose a folder, or a part of a log, or put an old copy of one back, and clean up
 * after all of that.
 */
import type { NodeId } from "../../src/raft/types.ts";
import type { Millis } from "../../src/replica/ports.ts";
import { mayLeave, mayLose, rot } from "./atlas.ts";
import type { SimNode } from "./node.ts";
import { applyOddly } from "./odd-apply.ts";
import type { FaultFamily } from "./options.ts";
import type { Simulation } from "./simulation.ts";
import { Prng } from "./world.ts";

/** Members beyond the founders that one run may see. */
const NEWCOMERS_MAX = 4;
/** How often, and how many times, is looked whether a membership is a joint one. */
const JOINT_LOOK_MS: Millis = 1;
const JOINT_LOOKS = 4_000;
/** For one change of the membership; a leader takes four seconds at most. */
const CHANGE_MS: Millis = 6_000;
/** In which who is back has to hear of the leader. */
const HEARD_MS: Millis = 2_000;
/** For a member to be found wrong. */
const WRONG_MS: Millis = 4_000;
/** For a removal to become true, however often it is asked for. */
const REMOVAL_MS: Millis = 8_000;

type Deed = Extract<
  FaultFamily,
  | "add"
  | "remove"
  | "replace"
  | "remove-cut"
  | "return"
  | "wipe"
  | "old-copy"
  | "log-rot"
  | "vote-rot"
  | "same-again"
  | "joint-cut"
  | "lone-return"
  | "last-right"
  | "added-again"
>;
const DEEDS: readonly Deed[] = [
  "add",
  "remove",
  "replace",
  "remove-cut",
  "return",
  "wipe",
  "old-copy",
  "log-rot",
  "vote-rot",
  "same-again",
  "joint-cut",
  "lone-return",
  "last-right",
  "added-again",
];

export class Operator {
  readonly #sim: Simulation;
  readonly #prng: Prng;
  readonly #deeds: readonly Deed[];

  constructor(sim: Simulation) {
    this.#sim = sim;
    this.#prng = new Prng(sim.world.prng.uint32());
    this.#deeds = DEEDS.filter((deed) => sim.options.families.has(deed));
  }

  async run(): Promise<void> {
    const { mood, options } = this.#sim;
    if (this.#deeds.length === 0) return;
    while (mood.wild()) {
      await this.#sim.sleep(this.#prng.float() * 10 * options.faultEveryMs + 200);
      if (!mood.wild() || this.#sim.membership === null) continue;
      const deed = this.#prng.pick(this.#deeds);
      if (await this.#do(deed)) this.#sim.faults.count(deed);
    }
  }

  #do(deed: Deed): Promise<boolean> {
    switch (deed) {
      case "add":
        return this.#add();
      case "remove":
        return this.#removeOne(false);
      case "remove-cut":
        return this.#removeOne(true);
      case "replace":
        return this.#replace();
      case "return":
        return this.#comeBack();
      case "wipe":
        return this.#lose("wipe");
      case "old-copy":
        return this.#lose("old-copy");
      case "vote-rot":
        return this.#loseVote();
      case "same-again":
        return this.#sameAgain();
      case "joint-cut":
        return this.#replaceAndCut();
      case "lone-return":
        return this.#comeBackToNobody();
      case "last-right":
        return this.#removeTheRight();
      case "added-again":
        return this.#addAgain();
      case "log-rot":
        return Promise.resolve(this.#rot());
    }
  }

  // ------------------------------------------------------------------ deeds

  /** An empty folder knocks; or the member is added first, perhaps as a voter in any case, and comes then. */
  async #add(): Promise<boolean> {
    const node = this.#newcomer();
    if (node === null) return false;
    if (this.#prng.chance(0.5)) {
      this.#join(node);
      return true;
    }
    const added = await this.#ask("members.add", {
      ...wish(node.id),
      voter: this.#prng.chance(0.5),
    });
    this.#join(node);
    return added;
  }

  async #replace(): Promise<boolean> {
    const old = this.#pick();
    const node = old === null ? null : this.#newcomer();
    if (old === null || node === null) return false;
    this.#sim.leaving.add(old.id);
    const asked = await this.#ask("members.add", { ...wish(node.id), replaces: old.id });
    this.#join(node);
    return asked;
  }

  /** As above; in the moment in which both halves must agree the old one is not heard, and reads are asked for (6.4). */
  async #replaceAndCut(): Promise<boolean> {
    const { network, world, nodes, mood, options } = this.#sim;
    let looks = JOINT_LOOKS;
    const look = (): void => {
      const leader = nodes.find(({ up, replica }) => up && replica?.core?.role === "leader");
      const { voters = [], outgoing = [] } = leader?.replica?.core?.configuration ?? {};
      looks -= 1;
      if (leader === undefined || outgoing.length === 0) {
        if (looks > 0 && mood.wild()) world.at(world.now + JOINT_LOOK_MS, look);
        return;
      }
      const deaf = outgoing.filter((id) => id !== leader.id);
      this.#sim.trace.say(leader.id, `hears nothing of ${deaf.join(" ")} between two memberships`);
      this.#sim.faults.count("joint-cut");
      for (const id of deaf) network.setCut(id, leader.id, true);
      for (const node of nodes)
        if (node !== leader && voters.includes(node.id))
          node.clock.enter(() => void node.replica?.linearize(1_000).catch(() => undefined));
      world.at(world.now + options.electionTimeoutMs, () => {
        this.#sim.disturbed();
        for (const id of deaf) network.setCut(id, leader.id, false);
      });
    };
    look();
    await this.#replace();
    return false;
  }

  /** `cut`: the others do not hear of it, or it does not. */
  async #removeOne(cut: boolean): Promise<boolean> {
    const node = this.#pick();
    if (node === null) return false;
    const { network, world } = this.#sim;
    if (cut) {
      this.#sim.trace.say(node.id, "is cut off, and will be removed");
      const others = this.#sim.nodes.filter((other) => other !== node);
      const set = (on: boolean): void => {
        for (const { id } of others) {
          network.setCut(node.id, id, on);
          network.setCut(id, node.id, on);
        }
      };
      set(true);
      world.at(world.now + this.#prng.float() * 8_000, () => set(false));
    }
    if (!(await this.#remove(node))) return false;
    if (this.#prng.chance(0.5)) node.end();
    return true;
  }

  /** Who was removed comes with an empty folder, under its old id or a new one (M4). */
  async #comeBack(): Promise<boolean> {
    const { nodes } = this.#sim;
    const gone = nodes.filter(({ id }) => this.#isGone(id) && this.#mayBeGone(id));
    if (gone.length === 0) return false;
    const node = this.#prng.pick(gone);
    if (this.#prng.chance(0.3)) {
      const other = this.#newcomer();
      if (other === null) return false;
      node.end();
      this.#join(other);
      return true;
    }
    this.#sim.trace.say(node.id, "comes back with an empty folder");
    node.wipe();
    this.#join(node);
    return true;
  }

  /**
   * Removed in the first start of its folder, and back at once with an empty one: while it hears of what the earlier folder
   * asked, it is asked for something itself, under the same start and numbers (T2).
   */
  async #sameAgain(): Promise<boolean> {
    const node = this.#pick();
    if (node === null || node.disk.boot !== 1 || !node.answers) return false;
    for (let i = 0; i < 12; i++) this.#sim.writeAt(node);
    await this.#sim.sleep(300 * this.#prng.float());
    if (!(await this.#remove(node)) || !this.#sim.mood.wild()) return false;
    this.#sim.trace.say(node.id, "comes back at once with an empty folder");
    node.wipe();
    this.#join(node);
    const { world } = this.#sim;
    for (let i = 0; i < 40; i++) world.at(world.now + 10 * i, () => this.#sim.writeAt(node));
    return true;
  }

  /** Removed, and added again under its id while its process runs and has things to say: it waits for another folder. */
  async #addAgain(): Promise<boolean> {
    const node = this.#pick();
    if (node === null || !node.answers) return false;
    for (let i = 0; i < 12; i++) this.#sim.writeAt(node);
    await this.#sim.sleep(100 * this.#prng.float());
    if (!(await this.#remove(node)) || !this.#sim.mood.wild()) return false;
    const added = await this.#ask("members.add", wish(node.id));
    await this.#sim.sleep(3_000 * this.#prng.float());
    if (!this.#sim.mood.wild()) return added;
    this.#sim.trace.say(node.id, "comes with an empty folder, as the member that was added again");
    node.wipe();
    this.#join(node);
    const { world } = this.#sim;
    for (let i = 0; i < 40; i++) world.at(world.now + 10 * i, () => this.#sim.writeAt(node));
    return added;
  }

  /**
   * Removed, and back at once with an empty folder, that knows entry 1 and who leads, and no more, when the leader dies. Who
   * founded the cluster alone is the only member by that entry.
   */
  async #comeBackToNobody(): Promise<boolean> {
    const { nodes, founders, network, world, options } = this.#sim;
    const founder = this.#sim.members().find(({ id }) => id === founders[0]);
    const node = founder !== undefined && founders.length === 1 ? founder : this.#pick();
    if (node === null || !(await this.#remove(node)) || !this.#sim.mood.wild()) return false;
    this.#sim.trace.say(node.id, "comes back with an empty folder, and hears of no entry");
    node.wipe();
    for (const { id } of nodes) if (id !== node.id) network.sieve(id, node.id, "append", HEARD_MS);
    this.#join(node);
    const deadline = world.now + HEARD_MS;
    const follows = (): boolean => (node.leadership?.leader ?? null) !== null;
    while (world.now < deadline && this.#sim.mood.wild() && !follows())
      await this.#sim.sleep(options.heartbeatMs / 2);
    const leader = nodes.find(({ id }) => id === node.leadership?.leader);
    if (leader === undefined || leader === node || !leader.up || !this.#sim.mood.wild())
      return false;
    this.#sim.crashed(leader, "none");
    return true;
  }

  /** While a member is known to be wrong, and none is mended, all others are asked to leave: one who is right must stay. */
  async #removeTheRight(): Promise<boolean> {
    const { world, mood, network, nodes } = this.#sim;
    const isWrong = ({ replica }: SimNode): boolean => (replica?.condemned() ?? null) !== null;
    for (const { id } of nodes)
      for (const other of nodes)
        if (other.id !== id) network.sieve(id, other.id, "snapshot", 2 * WRONG_MS);
    applyOddly(this.#sim, this.#prng);
    const deadline = world.now + WRONG_MS;
    while (world.now < deadline && mood.wild() && !this.#sim.members().some(isWrong))
      await this.#sim.sleep(20);
    const wrong = this.#sim.members().find(isWrong);
    if (wrong === undefined) return false;
    let asked = false;
    for (const node of this.#sim.members()) {
      if (node === wrong || !mood.wild() || !isWrong(wrong) || !mayLeave(this.#sim, node)) continue;
      this.#sim.leaving.add(node.id);
      await this.#ask("members.remove", { id: node.id });
      asked = true;
    }
    return asked;
  }

  /** Its folder is lost, or an old copy of it put back. It is removed when the cluster can, and joins again. */
  async #lose(how: "wipe" | "old-copy"): Promise<boolean> {
    const node = this.#pick();
    // Who was added and has not come yet has no folder.
    if (node === null || node.disk.boot === 0 || !mayLose(this.#sim, node)) return false;
    if (how === "old-copy") {
      if (!node.keepCopy()) return false;
      await this.#sim.sleep(this.#prng.float() * 3_000);
      // Votes must not go back with it, nor what only it and too few others hold.
      if (!this.#sim.mood.wild() || !node.copyMayReturn || !mayLose(this.#sim, node)) return false;
      node.putCopyBack();
    } else {
      this.#sim.trace.say(node.id, "loses its folder");
      node.wipe();
      // Started with neither --peers nor --join it would begin a cluster of its own.
      if (this.#sim.founders.length === 1) node.through ??= this.#someoneElse(node);
      node.start();
    }
    await this.#mend(node);
    return true;
  }

  /** Now and then whoever leads dies with it: who is elected next may need the vote of a damaged log. */
  #rot(): boolean {
    const node = this.#pick();
    if (node === null || !rot(this.#sim, this.#prng, node)) return false;
    const leader = this.#sim.leader();
    if (leader !== null && this.#prng.chance(0.3)) this.#sim.crashed(leader, "none");
    return true;
  }

  /** Its term and vote cannot be believed any more: it must not start, and is removed and added again. */
  async #loseVote(): Promise<boolean> {
    const node = this.#pick();
    if (node === null || !mayLose(this.#sim, node)) return false;
    node.kill("none");
    this.#sim.trace.say(node.id, "loses its term and its vote");
    const { disk } = node;
    disk.voteLost = true;
    node.start();
    await this.#sim.sleep(50);
    // Another operator may have emptied the folder meanwhile, or put an older copy of it back.
    if (!node.ended && node.disk === disk)
      this.#sim.fail("D8", `${node.id} starts without knowing its term and vote`);
    await this.#mend(node);
    return true;
  }

  async #mend(node: SimNode): Promise<void> {
    await this.#sim.sleep(this.#prng.float() * 4_000);
    if (!(await this.#remove(node)) || !this.#sim.mood.wild()) return;
    node.wipe();
    this.#join(node);
  }

  // ------------------------------------------------------------------ steps

  /** A member by the newest committed membership. */
  #pick(): SimNode | null {
    const members = this.#sim.members();
    return members.length < 2 ? null : this.#prng.pick(members);
  }

  #newcomer(): SimNode | null {
    const { nodes, options } = this.#sim;
    return nodes.length >= options.members + NEWCOMERS_MAX ? null : this.#sim.addNode();
  }

  #join(node: SimNode): void {
    const through = this.#someoneElse(node);
    if (through === null || !this.#sim.mood.wild()) return;
    this.#sim.leaving.delete(node.id);
    node.through = through;
    node.start();
  }

  #someoneElse(node: SimNode): NodeId | null {
    const others = this.#sim.members().filter((other) => other !== node);
    return others.length === 0 ? null : this.#prng.pick(others).id;
  }

  #isGone(id: NodeId): boolean {
    return this.#sim.membership?.configuration.members[id] === undefined;
  }

  /** Nothing in any log would make it a member again. */
  #mayBeGone(id: NodeId): boolean {
    const { nodes, appliedMax } = this.#sim;
    return nodes.every(({ store }) => {
      const newest = store?.membership ?? null;
      return (
        newest === null ||
        newest.index <= appliedMax ||
        newest.configuration.members[id] === undefined
      );
    });
  }

  /** True once it is so, for good. */
  async #remove(node: SimNode): Promise<boolean> {
    const { world, mood } = this.#sim;
    const deadline = world.now + REMOVAL_MS;
    while (world.now < deadline && mood.wild()) {
      if (mayLeave(this.#sim, node)) {
        this.#sim.leaving.add(node.id);
        await this.#ask("members.remove", { id: node.id });
      }
      if (this.#isGone(node.id) && this.#mayBeGone(node.id)) return true;
      await this.#sim.sleep(200);
    }
    return false;
  }

  /** At any member that is up. False: it failed, or nobody knows. */
  async #ask(method: string, body: unknown): Promise<boolean> {
    const up = this.#sim.members().filter((node) => node.answers);
    const at = up.length === 0 ? null : this.#prng.pick(up);
    if (at === null) return false;
    this.#sim.trace.say(at.id, `is asked for ${method} ${JSON.stringify(body)}`);
    const done = await this.#sim.ask(at, method, body, CHANGE_MS);
    this.#sim.trace.say(at.id, `${done === null ? "has done" : `refuses (${done})`} ${method}`);
    return done === null;
  }
}

function wish(id: NodeId): { readonly id: NodeId; readonly url: string } {
  return { id, url: `http://${id}` };
}
