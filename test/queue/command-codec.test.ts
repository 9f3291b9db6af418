import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeCommand, encodeCommand } from "../../src/queue/command-codec.ts";
import type { Command } from "../../src/queue/commands.ts";
import { DEFAULT_RETRY, type LeaseEnd, type NewTask } from "../../src/queue/types.ts";
import { asNodeId } from "../../src/raft/types.ts";
import { FatalError } from "../../src/replica/ports.ts";
import { complete, failure, idAt, newTask, START } from "./machine-harness.ts";

const hex = (bytes: Uint8Array): string => bytes.toHex();

/**
 * Once a log was written, builds must read it for ever: these bytes never change. A new field gets a new
 * example beside the old one.
 */
const GOLDEN: readonly (readonly [name: string, command: Command, bytes: string])[] = [
  [
    "submit",
    {
      type: "submit",
      tasks: [
        newTask(idAt(START, 1), { payload: '{"é":1}', retry: DEFAULT_RETRY }),
        newTask(idAt(START, 2), {
          name: "other",
          queue: "q",
          priority: 9,
          payload: null,
          max_retries: 0,
          run_at: START + 5_000,
          timeout_ms: null,
          body_hash: "ab",
        }),
      ],
      idem: { principal: "p", route: "POST /api/tasks", key: "k", hash: "h" },
    },
    "010209776f726b0f64656661756c74000000000000144000000000000008400100000000004ced40a3017b226b69" +
      "6e64223a226578706f6e656e7469616c222c22696e697469616c5f6d73223a313030302c22666163746f72223a32" +
      "2c226d61785f6d73223a3330303030302c226a6974746572223a747275657d000b6f746865720371000000000000" +
      "224000000000000000000087017b226b696e64223a226e6f6e65222c22696e697469616c5f6d73223a302c226661" +
      "63746f72223a322c226d61785f6d73223a302c226a6974746572223a66616c73657d000200493031386263666535" +
      "2d363830302d373030302d383030302d30303030303030303030303101107b22c3a9223a317d0149303138626366" +
      "65352d363830302d373030302d383030302d303030303030303030303032060080b857febc784205616201160370" +
      "1f504f5354202f6170692f7461736b73036b036800",
  ],
  [
    "claim",
    {
      type: "claim",
      worker_id: "n1/7",
      request_id: "c300",
      principal: "executor",
      queues: null,
      names: ["mail", "résumé"],
      star: true,
      max: 10,
      local: { member: asNodeId("n1"), boot: 7 },
    },
    "02096e312f370963333030116578656375746f720003096d61696c1072c3a973756dc3a9030a056e310700",
  ],
  [
    "end",
    {
      type: "end",
      worker_id: "w",
      principal: "p",
      items: [
        { task_id: idAt(START, 1), attempt: 1, fence: 4_294_967_296, end: complete },
        { task_id: "t", attempt: 2, fence: 128, end: { kind: "complete", result: null } },
        {
          task_id: "t",
          attempt: 300,
          fence: 1,
          end: failure({ retry_after_ms: 0.5, crashed: true }),
        },
        { task_id: "t", attempt: 1, fence: 1, end: { kind: "snooze", delay_ms: 1_000 } },
        { task_id: "t", attempt: 1, fence: 1, end: { kind: "release" } },
      ],
    },
    "0303770370054930313862636665352d363830302d373030302d383030302d303030303030303030303031018080" +
      "808010010d22646f6e65220374028001000374ac0201027f7b2274797065223a224572726f72222c226d65737361" +
      "6765223a22626f6f6d222c22737461636b223a6e756c6c2c22726574727961626c65223a747275657d0300000000" +
      "0000e03f03740101030000000000408f40037401010400",
  ],
  [
    "settings of machine version 2",
    { type: "settings", settings: { log_tail: { max_bytes: 1_048_576, young_ms: 0 } } },
    "007b2274797065223a2273657474696e6773222c2273657474696e6773223a7b226c6f675f7461696c223a7b226d61" +
      "785f6279746573223a313034383537362c22796f756e675f6d73223a307d7d7d",
  ],
  [
    "anything else",
    { type: "due", term: 3, max: 100 },
    "007b2274797065223a22647565222c227465726d223a332c226d6178223a3130307d",
  ],
];

describe("commands as bytes", () => {
  for (const [name, command, bytes] of GOLDEN) {
    test(`${name}: the bytes are those of the first build, and are read as what was written`, () => {
      expect(hex(encodeCommand(command))).toBe(bytes);
      expect(decodeCommand(Uint8Array.fromHex(bytes))).toEqual(command);
    });
  }

  const text = fc.string({ unit: "grapheme", maxLength: 60 });
  const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const milliseconds = fc
    .double({ min: 0, max: 1e12, noNaN: true })
    .filter((n) => !Object.is(n, -0));
  const idem = fc.option(fc.record({ principal: text, route: text, key: text, hash: text }), {
    nil: undefined,
  });
  const task: fc.Arbitrary<NewTask> = fc.record({
    id: text,
    name: fc.constantFrom("a", "b"),
    queue: fc.constantFrom("q", "ü"),
    priority: fc.constantFrom(0, 5, 9, -3, 2.5),
    payload: fc.option(fc.json()),
    max_retries: fc.constantFrom(0, 3),
    run_at: fc.option(milliseconds),
    timeout_ms: fc.option(fc.constantFrom(60_000, 1)),
    retry: fc.constantFrom(DEFAULT_RETRY, { ...DEFAULT_RETRY, factor: 1.5 }),
    body_hash: fc.option(text),
  });
  const end: fc.Arbitrary<LeaseEnd> = fc.oneof(
    fc.record({ kind: fc.constant("complete" as const), result: fc.option(fc.json()) }),
    fc.record({
      kind: fc.constant("fail" as const),
      error: fc.record({
        type: text,
        message: text,
        stack: fc.option(text),
        retryable: fc.boolean(),
      }),
      retry_after_ms: fc.option(milliseconds),
      crashed: fc.boolean(),
    }),
    fc.record({ kind: fc.constant("snooze" as const), delay_ms: milliseconds }),
    fc.constant({ kind: "release" as const }),
  );
  const command: fc.Arbitrary<Command> = fc
    .tuple(
      fc.oneof(
        fc.record({
          type: fc.constant("submit" as const),
          tasks: fc.array(task, { maxLength: 40 }),
        }),
        fc.record({
          type: fc.constant("claim" as const),
          worker_id: text,
          request_id: text,
          principal: text,
          queues: fc.option(fc.array(text)),
          names: fc.option(fc.array(text)),
          star: fc.boolean(),
          max: count,
          local: fc.option(fc.record({ member: text.map(asNodeId), boot: count })),
        }),
        fc.record({
          type: fc.constant("end" as const),
          worker_id: text,
          principal: text,
          items: fc.array(fc.record({ task_id: text, attempt: count, fence: count, end })),
        }),
        fc.record({ type: fc.constant("cancel" as const), id: text }),
      ),
      idem,
    )
    .map(([asked, scope]) => (scope === undefined ? asked : { ...asked, idem: scope }));

  test("come back as they were, whatever is in them", () => {
    fc.assert(
      fc.property(command, (asked) => {
        expect(decodeCommand(encodeCommand(asked))).toEqual(asked);
      }),
      { numRuns: 300 },
    );
  });

  test("cut anywhere, or of a kind or with bits of a later build, stop the member in words", () => {
    const [submit, claim, ended] = GOLDEN.map(([, , bytes]) => Uint8Array.fromHex(bytes));
    if (submit === undefined || claim === undefined || ended === undefined) throw new Error("none");
    for (const whole of [submit, claim, ended]) {
      for (let length = 0; length < whole.length; length++)
        expect(() => decodeCommand(whole.slice(0, length))).toThrow(FatalError);
    }
    expect(() => decodeCommand(new Uint8Array([77]))).toThrow("start a newer build");
    const { length } = claim;
    // The claim ends with the end of its options: one that is odd and unknown, then one that is even.
    const withOption = (tag: number): Uint8Array =>
      new Uint8Array([...claim.subarray(0, length - 1), tag, 1, 65, 0]);
    expect(() => decodeCommand(withOption(7))).toThrow("option 7");
    expect(decodeCommand(withOption(8))).toEqual(decodeCommand(claim));
  });

  test("a payload costs its own bytes, whatever JSON would escape, and tasks alike share what they share", () => {
    const payload = JSON.stringify('"\\'.repeat(10_000));
    const tasks = Array.from({ length: 100 }, (_, i) =>
      newTask(idAt(START, i), { payload, retry: { ...DEFAULT_RETRY } }),
    );
    const { length } = encodeCommand({ type: "submit", tasks });
    expect(length / 100 - payload.length).toBeLessThan(50);
  });

  test("numbers that no entry can hold are refused where the command is made", () => {
    const bad = (fence: number): Command => ({
      type: "end",
      worker_id: "w",
      principal: "p",
      items: [{ task_id: "t", attempt: 1, fence, end: complete }],
    });
    for (const fence of [-1, 0.5, Number.NaN, 2 ** 53])
      expect(() => encodeCommand(bad(fence))).toThrow(RangeError);
    expect(decodeCommand(encodeCommand(bad(3)))).toEqual(bad(3));
  });
});
