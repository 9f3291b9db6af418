/** The other members as processes: who is dialled and let in, what they said of themselves, who is gone. */
import { EMPTY_CONFIGURATION } from "../raft/configuration.ts";
import type { Raft } from "../raft/raft.ts";
import { asIndex, asTerm, type Configuration, type LogIndex, type NodeId } from "../raft/types.ts";
import type { Admission } from "./admission.ts";
import type { Contacts } from "./contacts.ts";
import type { Core } from "./core.ts";
import type { Eligibility } from "./eligibility.ts";
import type { Founder } from "./founder.ts";
import type {
  DisconnectReason,
  Identity,
  Judged,
  Millis,
  PeerHello,
  RecoveredLog,
  Refusal,
  Timer,
} from "./ports.ts";
import type { ReplicaOptions } from "./replica-options.ts";
import type { Sightings } from "./sightings.ts";
import type { Standing } from "./standing.ts";
import { versionRefusal } from "./versions.ts";

/** Before a member whose connection to the leader broke asks for votes, drawn from [0, this). */
const EARLY_CAMPAIGN_MS: Millis = 50;

/** What it needs of the replica around it. */
export interface PeersPort {
  readonly identity: Identity;
  readonly recovered: Pick<RecoveredLog, "hardState" | "promised" | "damage">;
  readonly options: Pick<
    ReplicaOptions,
    | "clock"
    | "log"
    | "random"
    | "transport"
    | "machine"
    | "machineVersions"
    | "peers"
    | "join"
    | "advertise"
    | "onJoinRefused"
  >;
  readonly core: Core;
  readonly standing: Standing;
  readonly eligibility: Eligibility;
  readonly admission: Admission;
  readonly founder: Founder;
  readonly contacts: Contacts;
  readonly sightings: Sightings;
  /** Also read by others; kept here. */
  readonly hellos: Map<NodeId, PeerHello>;
  /** The connection to `peer` is open. */
  connected(peer: NodeId): void;
  /** It is not any more. */
  disconnected(peer: NodeId): void;
  /** Who is a member has changed. */
  followed(before: Configuration, configuration: Configuration): void;
}

export class Peers {
  readonly #port: PeersPort;
  /** As of the newest look: who was a member then. */
  #configuration: Configuration = EMPTY_CONFIGURATION;
  /** The member at `--join`, once it is known. */
  #seed: NodeId | null = null;
  /** Why the member at `--join` does not let this one in, as it was logged last. */
  #joinTold: string | null = null;
  #campaignTimer: Timer | null = null;
  readonly #startedAt: Millis;

  constructor(port: PeersPort) {
    this.#port = port;
    this.#startedAt = Math.max(0, Math.floor(port.options.clock.wall()));
  }

  get configuration(): Configuration {
    return this.#configuration;
  }

  stop(): void {
    this.#campaignTimer?.cancel();
  }

  /** What this member says of itself. */
  hello(): PeerHello {
    const { identity, options, founder, recovered } = this.#port;
    const raft = this.#raft;
    // Damaged from its first entry on, a log makes no core, but what it promised stands.
    const promised = raft === null ? recovered.promised?.index : raft.repairingTo;
    return {
      id: identity.id,
      incarnation: identity.incarnation,
      boot: identity.boot,
      clusterId: founder.clusterId,
      // Not what the disk may still lose; but all that a log in repair promised, and will hold again.
      lastIndex: promised ?? raft?.durable ?? asIndex(0),
      lastTerm: raft?.termAt(raft.durable) ?? asTerm(0),
      peerIds: founder.peerIds,
      advertise: options.advertise,
      machineVersion: options.machineVersions.newest,
      machineVersionOldest: options.machineVersions.oldest,
      bootstrap: founder.record === null ? null : JSON.stringify(founder.record),
      term: raft?.durableTerm ?? recovered.hardState.term,
      configIndex: raft?.configurationIndex ?? asIndex(0),
      ...(this.#wantsIn ? { join: true } : {}),
      startedAt: this.#startedAt,
    };
  }

  get #raft(): Raft | null {
    return this.#port.core.raft;
  }

  /**
   * It was told to join, and was never a member as far as its log goes, nor by the word of a leader that removed it. Not what a
   * damaged log goes by.
   */
  get #wantsIn(): boolean {
    const { options, recovered, admission } = this.#port;
    if ((options.join ?? null) === null || admission.retired !== null) return false;
    const isWhole = (recovered.damage ?? null) === null && this.#raft?.repairingTo === null;
    return this.#raft === null || (isWhole && admission.memberSince === null);
  }

  /** An empty folder that asks to be added. */
  get #isJoining(): boolean {
    return this.#raft === null && (this.#port.options.join ?? null) !== null;
  }

  // ------------------------------------------------------------------ who is dialled

  /** The core was made: who is a member by its log is no news. */
  started(raft: Raft): void {
    this.#configuration = raft.configuration;
  }

  /** `seed`: the member at the address of `--join`. */
  joinThrough(seed: NodeId): void {
    this.#seed = seed;
    if (this.#raft === null) this.dial();
  }

  dial(): void {
    const { core, admission, options, identity, contacts } = this.#port;
    if (core.isStopped) return;
    const raft = this.#raft;
    const addresses =
      raft === null
        ? admission.addresses(EMPTY_CONFIGURATION, asIndex(0), null)
        : admission.addresses(raft.configuration, raft.configurationIndex, raft.leader);
    if (raft === null)
      for (const [id, url] of options.peers) if (!addresses.has(id)) addresses.set(id, [url]);
    const { join = null } = options;
    if (raft === null && this.#seed !== null && join !== null && !addresses.has(this.#seed))
      addresses.set(this.#seed, [join]);
    addresses.delete(identity.id);
    contacts.forgetAllBut(new Set<string>(addresses.keys()));
    options.transport.setPeers(addresses);
  }

  /** Who is a member has changed: in the log, not yet for good. */
  reconfigured(configuration: Configuration): void {
    const before = this.#configuration;
    this.#configuration = configuration;
    const removed: (readonly [NodeId, string])[] = [];
    for (const [key, { url }] of Object.entries(before.members))
      if (configuration.members[key] === undefined) removed.push([key as NodeId, url]);
    const index: LogIndex = this.#raft?.configurationIndex ?? asIndex(0);
    const { admission, options } = this.#port;
    this.#dismissOtherFolders(before, configuration);
    const wasMember = admission.memberSince !== null;
    admission.follow(configuration, index, removed);
    this.#port.followed(before, configuration);
    // The change that let this folder in was lost with its leader. Whoever knows it as a guest has no reason to end the
    // connection: it says by itself that it wants in.
    if (wasMember && this.#wantsIn) options.transport.setPeers(new Map());
    this.dial();
  }

  /**
   * By the newest membership another folder is the member, or one that is still to come: an earlier one of the same id, or one
   * whose admission was lost with its leader. It dials again, and is let in anew or told that it is out.
   */
  #dismissOtherFolders(before: Configuration, configuration: Configuration): void {
    const { hellos, options } = this.#port;
    for (const [key, { incarnation }] of Object.entries(configuration.members)) {
      const id = key as NodeId;
      const hello = hellos.get(id);
      const connected = hello?.incarnation;
      if (connected === undefined || connected === incarnation) continue;
      // This log is catching up with what that one knows.
      if ((hello?.configIndex ?? 0) > (this.#raft?.configurationIndex ?? 0)) continue;
      if (before.members[key]?.incarnation === incarnation) continue;
      options.transport.dismiss(id, {
        sentence: `the folder of ${id} has not been let in, by the newest membership`,
        code: "joining",
      });
    }
  }

  // ------------------------------------------------------------------ connections

  connected(peer: NodeId, hello: PeerHello): void {
    const { hellos, admission, founder } = this.#port;
    hellos.set(peer, hello);
    admission.welcomed(hello);
    founder.step();
    this.#port.connected(peer);
  }

  disconnected(peer: NodeId, reason: DisconnectReason): void {
    const { hellos, admission } = this.#port;
    const hello = hellos.get(peer);
    if (hello !== undefined) admission.lost(peer, hello.boot);
    hellos.delete(peer);
    this.#port.disconnected(peer);
    const raft = this.#raft;
    raft?.disconnected(peer);
    if (raft === null || raft.leader !== peer) return;
    if (reason === "refused") this.#leaderLost(raft, peer);
  }

  /** It takes part in the log: whatever its hello said, it belongs to this cluster. */
  takesPart(peer: NodeId): void {
    const { hellos, founder } = this.#port;
    const hello = hellos.get(peer);
    if (hello?.clusterId === null) hellos.set(peer, { ...hello, clusterId: founder.clusterId });
  }

  /** Null lets it in. */
  admit(hello: PeerHello): Refusal | null {
    const { founder, options, admission, sightings } = this.#port;
    const unknown = this.#raft === null ? founder.admit(hello) : null;
    if (unknown !== null) return { sentence: unknown, code: "refused" };
    // Before it is added: what it cannot apply, it must not count for.
    const inForce = options.machine.machineVersion();
    const unfit = this.#raft === null ? null : versionRefusal(hello, inForce);
    if (unfit !== null) return { sentence: unfit, code: "refused" };
    // Its own log will be older than whoever adds it.
    if (this.#raft === null && hello.clusterId !== null) admission.meet(hello);
    const refusal = admission.admit(hello);
    const { id, incarnation, boot, startedAt } = hello;
    if (refusal === null && this.#configuration.members[id]?.incarnation === incarnation)
      sightings.saw(id, { incarnation, boot, startedAt, index: asIndex(0), term: asTerm(0) });
    return refusal;
  }

  refused(peer: NodeId, refusal: Refusal, judged: Judged): void {
    const { sentence, code } = refusal;
    if (code === "joining") return;
    this.#port.admission.refusedBy(peer, refusal, judged);
    if (!this.#isJoining || peer !== this.#seed) return;
    const isFinal = code === "no-join" || code === "removed";
    // A folder whose log is lost cannot show that it was let in: a member that lags behind has not heard of that yet.
    if (isFinal && this.#port.founder.clusterId === null)
      this.#port.options.onJoinRefused?.(sentence);
    else if (this.#joinTold !== sentence) {
      this.#joinTold = sentence;
      this.#port.options.log.error(`not joined, and tried again: ${sentence}`, { peer });
    }
  }

  /** Why this member does not take part, for people. */
  waiting(now: Millis): string | null {
    const { admission, standing, founder } = this.#port;
    const { retired } = admission;
    if (retired !== null) return retired;
    const alone = standing.leadership.leader === null ? admission.whyAlone(now) : null;
    return alone ?? founder.waiting;
  }

  /**
   * The leader's process is gone: its connection was closed by the other side and a redial was refused. Asks
   * for votes without waiting for the election timeout; a voter agrees only if it saw the same.
   */
  #leaderLost(raft: Raft, leader: NodeId): void {
    const { core, options, eligibility, standing } = this.#port;
    raft.leaderLost();
    if (this.#campaignTimer !== null) return;
    const { clock, random, transport } = options;
    this.#campaignTimer = clock.after(random.float() * EARLY_CAMPAIGN_MS, () => {
      this.#campaignTimer = null;
      if (core.isStopped || core.isHalted || transport.isConnected(leader) || !eligibility.mayLead)
        return;
      if (raft.role !== "follower" || (raft.leader !== null && raft.leader !== leader)) return;
      standing.expect("leader-lost");
      core.guard(() => raft.campaign());
      core.schedulePump();
    });
  }
}
