/**
 * What every store of snapshots must do, whatever it keeps them in, together with the log that belongs to it.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { asIndex, asNodeId, asTerm } from "../../src/raft/types.ts";
import type {
  LogStore,
  RecoveredLog,
  SnapshotChunk,
  SnapshotCopy,
  SnapshotManifest,
  SnapshotStore,
} from "../../src/replica/ports.ts";
import type { InstallStep } from "../../src/storage/sqlite-snapshots.ts";
import { entry, hard, plain, run, write } from "./entries.ts";
import { failure } from "./log-suite.ts";

export interface OpenMember {
  readonly log: LogStore;
  readonly snapshots: SnapshotStore;
  readonly recovered: RecoveredLog;
  /** Where the state stands, read from the tables (or what stands for them). */
  position(): { readonly index: number; readonly term: number };
  /** As if entries up to there had been applied, with so many bytes of state. */
  advance(index: number, term: number, bytes: number): void;
  close(): Promise<void>;
}

/** One member's folder, which outlives the members that are opened on it. */
export interface MemberPlace {
  open(onStep?: (step: InstallStep) => void): Promise<OpenMember>;
  /** Names of files that no open member needs. */
  leftOvers(): readonly string[];
  remove(): void;
}

const STEPS: readonly InstallStep[] = ["rename", "mark", "switch", "reopen", "remove", "finish"];
const CHUNK = 10_000;

const MEMBERSHIP = {
  voters: [asNodeId("n1"), asNodeId("n2")],
  outgoing: [],
  learners: [],
  learnersNext: [],
  members: {},
};

const FOUNDATIONS = [
  entry(1, 1, "founding", "bootstrap"),
  entry(40, 3, "members as of 40", "config"),
];

function chunkOf(data: Uint8Array): SnapshotChunk {
  return { data, crc: Bun.hash.crc32(data) };
}

function manifestOf(copy: SnapshotCopy): SnapshotManifest {
  return {
    ...copy,
    configuration: MEMBERSHIP,
    bootstrap: { clusterId: "c1", createdAt: 1, members: [], settings: null, machineVersion: 1 },
  };
}

export function snapshotSuite(name: string, createPlace: () => MemberPlace): void {
  describe(`a store of snapshots: ${name}`, () => {
    let places: MemberPlace[];
    let open: OpenMember[];

    beforeEach(() => {
      places = [createPlace(), createPlace()];
      open = [];
    });
    afterEach(async () => {
      for (const member of open) await member.close();
      for (const place of places) place.remove();
    });

    function place(i: number): MemberPlace {
      const found = places[i];
      if (found === undefined) throw new Error(`no place ${i}`);
      return found;
    }

    async function start(i: number, onStep?: (step: InstallStep) => void): Promise<OpenMember> {
      const member = await place(i).open(onStep);
      open.push(member);
      return member;
    }

    async function stop(member: OpenMember): Promise<void> {
      open = open.filter((other) => other !== member);
      await member.close();
    }

    /** A member that has applied 40 entries, the last of term 3, and one that has 9 of term 2. */
    async function ahead(): Promise<{ source: OpenMember; copy: SnapshotCopy }> {
      const source = await start(0);
      source.advance(40, 3, 55_000);
      return { source, copy: await source.snapshots.create() };
    }

    async function behind(onStep?: (step: InstallStep) => void): Promise<OpenMember> {
      const target = await start(1, onStep);
      await write(target.log, { hardState: hard(2, "n2"), entries: run(1, 9, 2) });
      target.advance(7, 2, 1_000);
      return target;
    }

    async function transfer(source: OpenMember, target: OpenMember, id: string, bytes: number) {
      const offsets = Array.from({ length: Math.ceil(bytes / CHUNK) }, (_, i) => i * CHUNK);
      // From back to front, and the first one twice: a connection that broke sends again.
      for (const offset of [...offsets.toReversed(), 0]) {
        await target.snapshots.write(id, offset, await source.snapshots.read(id, offset, CHUNK));
      }
    }

    test("a copy says where it stands and what its bytes come to, and reads by offset", async () => {
      const { source, copy } = await ahead();
      expect(copy).toMatchObject({ index: 40, term: 3, machineVersion: 1 });
      const pieces: Uint8Array[] = [];
      for (let offset = 0; offset < copy.bytes; offset += CHUNK) {
        pieces.push((await source.snapshots.read(copy.id, offset, CHUNK)).data);
      }
      const whole = Buffer.concat(pieces);
      expect(whole.length).toBe(copy.bytes);
      expect(new Bun.CryptoHasher("sha256").update(whole).digest("hex")).toBe(copy.checksum);
      expect((await source.snapshots.read(copy.id, copy.bytes + 1, 10)).data).toHaveLength(0);
    });

    test("a copy stays as it was while the state goes on, and two are two", async () => {
      const { source, copy } = await ahead();
      const before = await source.snapshots.read(copy.id, 0, copy.bytes);
      source.advance(50, 4, 70_000);
      const later = await source.snapshots.create();
      expect(later).toMatchObject({ index: 50, term: 4 });
      expect(later.id).not.toBe(copy.id);
      expect(await source.snapshots.read(copy.id, 0, copy.bytes)).toEqual(before);
    });

    test("a removed copy, and one that never was, cannot be read", async () => {
      const { source, copy } = await ahead();
      await source.snapshots.remove(copy.id);
      await source.snapshots.remove(copy.id);
      await failure(source.snapshots.read(copy.id, 0, 10));
      await failure(source.snapshots.read("40-00000000deadbeef", 0, 10));
      await failure(source.snapshots.read("../../log.db", 0, 10));
    });

    test("what arrives in any order and twice is whole, takes the place of state and log, and stays", async () => {
      const { source, copy } = await ahead();
      let target = await behind();
      const manifest = manifestOf(copy);
      await target.snapshots.receive(manifest);
      await transfer(source, target, copy.id, copy.bytes);
      await target.snapshots.verify(copy.id);
      await target.snapshots.install(manifest, FOUNDATIONS);
      expect(target.position()).toEqual({ index: 40, term: 3 });
      await write(target.log, { hardState: hard(3), entries: [entry(41, 3)] });
      await stop(target);
      target = await start(1);
      expect(target.position()).toEqual({ index: 40, term: 3 });
      expect(target.recovered).toMatchObject({
        compacted: { index: 40, term: 3 },
        lastIndex: 41,
      });
      expect(plain(target.recovered.foundations ?? [])).toEqual(plain(FOUNDATIONS));
      expect(place(1).leftOvers()).toEqual([]);
    });

    test("a member that got one by a snapshot makes one itself, and installs a second one", async () => {
      const { source, copy } = await ahead();
      const target = await behind();
      for (const given of [copy, null]) {
        source.advance(given === null ? 60 : 40, 3, 90_000);
        const next = given ?? (await source.snapshots.create());
        const manifest = manifestOf(next);
        await target.snapshots.receive(manifest);
        await transfer(source, target, next.id, next.bytes);
        await target.snapshots.verify(next.id);
        await target.snapshots.install(manifest, FOUNDATIONS);
        expect(target.position().index).toBe(Number(next.index));
      }
      expect(await target.snapshots.create()).toMatchObject({ index: 60, term: 3 });
    });

    test("receiving goes on for the same identity and begins anew for another one", async () => {
      const { source, copy } = await ahead();
      const target = await behind();
      const half = await source.snapshots.read(copy.id, 0, CHUNK);
      await target.snapshots.receive(manifestOf(copy));
      await target.snapshots.write(copy.id, 0, half);
      await target.snapshots.receive(manifestOf(copy));
      for (let offset = CHUNK; offset < copy.bytes; offset += CHUNK) {
        const data = await source.snapshots.read(copy.id, offset, CHUNK);
        await target.snapshots.write(copy.id, offset, data);
      }
      await target.snapshots.verify(copy.id);
      const other = await source.snapshots.create();
      await target.snapshots.receive(manifestOf(other));
      await failure(target.snapshots.write(copy.id, 0, half));
      await failure(target.snapshots.install(manifestOf(copy), FOUNDATIONS));
      await failure(target.snapshots.install(manifestOf(other), FOUNDATIONS));
      expect(target.position().index).toBe(7);
    });

    test("a flipped bit, a hole, or another place in the log is found, and nothing has changed", async () => {
      const { source, copy } = await ahead();
      let target = await behind();
      const manifest = manifestOf(copy);

      await target.snapshots.receive(manifest);
      await transfer(source, target, copy.id, copy.bytes);
      const byte = new Uint8Array((await source.snapshots.read(copy.id, 20_000, 1)).data);
      byte[0] = (byte[0] ?? 0) ^ 4;
      const flipped = chunkOf(byte);
      // On its way it is found by the chunk's own checksum; later by that of the whole.
      expect(
        await target.snapshots.write(copy.id, 20_000, { ...flipped, crc: flipped.crc ^ 1 }),
      ).toBe(false);
      expect(await target.snapshots.write(copy.id, 20_000, flipped)).toBe(true);
      expect(await failure(target.snapshots.verify(copy.id))).toContain("checksum");
      await failure(target.snapshots.write(copy.id, 0, flipped)); // it was discarded

      await target.snapshots.receive(manifest);
      const last = await source.snapshots.read(copy.id, copy.bytes - 1, 1);
      await target.snapshots.write(copy.id, copy.bytes - 1, last);
      expect(await failure(target.snapshots.verify(copy.id))).toContain("checksum");

      const lying = { ...manifest, index: asIndex(41) };
      await target.snapshots.receive(lying);
      await transfer(source, target, copy.id, copy.bytes);
      expect(await failure(target.snapshots.verify(copy.id))).toContain("index 40");
      await failure(target.snapshots.install(lying, FOUNDATIONS));

      await target.snapshots.receive(manifest);
      await failure(target.snapshots.write(copy.id, copy.bytes - 1, chunkOf(new Uint8Array(2))));

      await stop(target);
      target = await start(1);
      expect(target.position()).toEqual({ index: 7, term: 2 });
      expect(target.recovered.lastIndex).toBe(asIndex(9));
      expect(place(1).leftOvers()).toEqual([]);
    });

    test("one that the log holds already is refused, and the member goes on as it was", async () => {
      const { source, copy } = await ahead();
      const target = await behind();
      await write(target.log, { hardState: hard(3), entries: run(10, 45, 3) });
      const manifest = manifestOf(copy);
      await target.snapshots.receive(manifest);
      await transfer(source, target, copy.id, copy.bytes);
      await target.snapshots.verify(copy.id);
      expect(await failure(target.snapshots.install(manifest, FOUNDATIONS))).toContain("1 to 45");
      await write(target.log, { entries: [entry(46, 3)] });
      expect(target.position()).toEqual({ index: 7, term: 2 });
    });

    for (const step of STEPS) {
      test(`a crash before the step "${step}" leaves a member that starts, old or new in both files`, async () => {
        const { source, copy } = await ahead();
        const manifest = manifestOf(copy);
        const fetchAndInstall = async (member: OpenMember): Promise<void> => {
          await member.snapshots.receive(manifest);
          await transfer(source, member, copy.id, copy.bytes);
          await member.snapshots.verify(copy.id);
          await member.snapshots.install(manifest, FOUNDATIONS);
        };
        const target = await behind((reached) => {
          if (reached === step) throw new Error("the power is gone");
        });
        expect(await failure(fetchAndInstall(target))).toContain("the power is gone");
        await stop(target);

        const again = await start(1);
        const { index } = again.position();
        const { compacted, lastIndex, foundations } = again.recovered;
        const isNew = STEPS.indexOf(step) > STEPS.indexOf("switch");
        if (isNew) {
          expect(index).toBe(40);
          expect(compacted).toEqual({ index: asIndex(40), term: asTerm(3) });
          expect(plain(foundations ?? [])).toEqual(plain(FOUNDATIONS));
        } else {
          expect(index).toBe(7);
          expect({ compacted: Number(compacted.index), last: Number(lastIndex) }).toEqual({
            compacted: 0,
            last: 9,
          });
          await fetchAndInstall(again);
        }
        expect(again.position()).toEqual({ index: 40, term: 3 });
        await write(again.log, { hardState: hard(3), entries: [entry(41, 3)] });
        expect(place(1).leftOvers()).toEqual([]);
      });
    }

    /** A member with the entries 1 to 60, whose state stands at 50 and is wrong. */
    async function wrong(onStep?: (step: InstallStep) => void): Promise<OpenMember> {
      const target = await start(1, onStep);
      await write(target.log, {
        hardState: hard(3),
        entries: [...run(1, 30, 2), ...run(31, 60, 3)],
      });
      target.advance(50, 3, 2_000);
      return target;
    }

    for (const step of ["never", "rename", "switch", "reopen", "remove"] as const) {
      test(`a wrong state is replaced, the log is not${step === "never" ? "" : `; a crash before the step "${step}"`}`, async () => {
        const { source, copy } = await ahead();
        const manifest = manifestOf(copy);
        const mend = async (member: OpenMember): Promise<void> => {
          await member.snapshots.receive(manifest);
          await transfer(source, member, copy.id, copy.bytes);
          await member.snapshots.verify(copy.id);
          await member.snapshots.replaceState(manifest);
        };
        const target = await wrong((reached) => {
          if (reached === step) throw new Error("the power is gone");
        });
        if (step === "never") await mend(target);
        else expect(await failure(mend(target))).toContain("the power is gone");
        await stop(target);

        const again = await start(1);
        const isNew = !["rename", "switch"].includes(step);
        expect(again.position().index).toBe(isNew ? 40 : 50);
        if (!isNew) await mend(again);
        expect(again.position()).toEqual({ index: 40, term: 3 });
        expect(Number(again.recovered.compacted.index)).toBe(0);
        expect(Number(again.recovered.lastIndex)).toBe(60);
        const evidence = place(1)
          .leftOvers()
          .filter((file) => file.startsWith("wrong-"));
        expect(place(1).leftOvers()).toEqual(evidence);
      });
    }
  });
}
