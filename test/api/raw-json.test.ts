import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  JSON_DEPTH_MAX,
  JSON_MEMBERS_MAX,
  JsonFault,
  parseKeeping,
  RawJson,
} from "../../src/api/raw-json.ts";

function fault(text: string, opaque: readonly (readonly string[])[] = []): JsonFault {
  try {
    parseKeeping(text, opaque);
  } catch (error) {
    if (error instanceof JsonFault) return error;
    throw error;
  }
  throw new Error("was accepted");
}

/** Without prototypes on one side and with them on the other. */
function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

describe("without opaque members", () => {
  test("it reads what JSON.parse reads, whatever the spacing", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom("", "  ", "\t", "\n \r\n"), (value, indent) => {
        const text = indent + JSON.stringify(value, null, indent.slice(0, 2)) + indent;
        expect(plain(parseKeeping(text, []))).toEqual(JSON.parse(text));
      }),
    );
  });

  test("it refuses what JSON.parse refuses", () => {
    fc.assert(
      fc.property(
        fc.jsonValue(),
        fc.nat(),
        fc.constantFrom("", ",", "}", '"', "\\", "x"),
        (value, cut, put) => {
          const whole = JSON.stringify(value);
          const at = cut % (whole.length + 1);
          const text = whole.slice(0, at) + put + whole.slice(at + 1);
          let valid = true;
          try {
            JSON.parse(text);
          } catch {
            valid = false;
          }
          let code = "";
          try {
            parseKeeping(text, []);
          } catch (error) {
            code = error instanceof JsonFault ? error.reason : String(error);
          }
          if (!valid) expect(code).toBe("malformed-json");
          else expect(["", "duplicate-key"]).toContain(code);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("opaque members", () => {
  test("keep the very text that was sent", () => {
    for (const raw of [
      "1.0",
      "1e400",
      "-0",
      "12345678901234567890123",
      '{ "a" : [ 1 ,2 ] }',
      '{"a":1,"a":2}',
      '"\\ud800 \\u0041 \\" \\\\"',
      '"\\\\"',
      "[[],{},[{}]]",
      '"}{]["',
      "null",
    ]) {
      const read = parseKeeping(`{"x":1,"payload": ${raw} ,"y":"z"}`, [["payload"]]);
      const { payload, x, y } = read as { payload: RawJson; x: number; y: string };
      expect(payload).toBeInstanceOf(RawJson);
      expect(payload.text).toBe(raw);
      expect([x, y]).toEqual([1, "z"]);
    }
  });

  test("are found in every element of an array, and nowhere else", () => {
    const text = '{"tasks":[{"payload":1.0},{"name":"payload"},{"payload":[2.0]}],"payload":3.0}';
    const read = parseKeeping(text, [["tasks", "*", "payload"]]) as {
      tasks: { payload?: RawJson }[];
      payload: number;
    };
    expect(read.tasks.map((task) => task.payload?.text)).toEqual(["1.0", undefined, "[2.0]"]);
    expect(read.payload).toBe(3);
  });

  test("are found by a key that is written with escapes", () => {
    const read = parseKeeping('{"p\\u0061yload":1.0}', [["payload"]]) as { payload: RawJson };
    expect(read.payload.text).toBe("1.0");
  });

  test("hold any JSON value unchanged", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(3), (value, indent) => {
        const raw = JSON.stringify(value, null, indent);
        const read = parseKeeping(`[${raw}, ${raw}\n]`, [["*"]]) as RawJson[];
        expect(read.map((item) => item.text)).toEqual([raw, raw]);
      }),
    );
  });
});

test("text that is no JSON is refused inside opaque members as outside", () => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.nat(),
      fc.constantFrom("", ",", "}", '"', "\\", "x", "\n", "0"),
      (value, cut, put) => {
        const whole = JSON.stringify({ a: 1, payload: value });
        const at = cut % (whole.length + 1);
        const text = whole.slice(0, at) + put + whole.slice(at + 1);
        let reason = "";
        let read: unknown;
        try {
          read = parseKeeping(text, [["payload"]]);
        } catch (error) {
          reason = error instanceof JsonFault ? error.reason : String(error);
        }
        let parsed: { payload?: unknown } | null = null;
        try {
          parsed = JSON.parse(text) as { payload?: unknown };
        } catch {
          expect(reason).toBe("malformed-json");
          return;
        }
        if (reason === "duplicate-key") return;
        expect(reason).toBe("");
        const { payload } = read as { payload?: RawJson };
        if (parsed?.payload === undefined) expect(payload).toBeUndefined();
        else expect(JSON.parse(payload?.text ?? "")).toEqual(parsed.payload);
      },
    ),
    { numRuns: 1_000 },
  );
});

describe("refused", () => {
  test("a key that comes twice, even spelt differently, with its pointer", () => {
    expect(fault('{"a":1,"\\u0061":2}')).toMatchObject({ reason: "duplicate-key", pointer: "/a" });
    expect(fault('{"t":[{},{"x/y":1,"x/y":1}]}').pointer).toBe("/t/1/x~1y");
    expect(fault('{"__proto__":1,"__proto__":2}').reason).toBe("duplicate-key");
  });

  test("nesting beyond the limit, in opaque members too, before anything can overflow", () => {
    const nest = (depth: number): string => "[".repeat(depth) + "]".repeat(depth);
    expect(parseKeeping(nest(JSON_DEPTH_MAX), [])).toBeInstanceOf(Array);
    expect(fault(nest(JSON_DEPTH_MAX + 1)).reason).toBe("too-deep");
    expect(fault(`{"payload":${nest(JSON_DEPTH_MAX)}}`, [["payload"]]).reason).toBe("too-deep");
    expect(fault("[".repeat(5_000_000)).reason).toBe("too-deep");
    expect(fault(`"${"[".repeat(500)}`).reason).toBe("malformed-json");
  });

  test("more members than any request has, but not inside opaque ones", () => {
    const numbers = `[${"1,".repeat(JSON_MEMBERS_MAX)}1]`;
    const object = `{${Array.from({ length: JSON_MEMBERS_MAX + 1 }, (_, i) => `"k${i}":1`).join(",")}}`;
    expect(fault(`{"a":${numbers}}`)).toMatchObject({ reason: "too-many-members", pointer: "/a" });
    expect(fault(object)).toMatchObject({ reason: "too-many-members", pointer: "" });
    const read = parseKeeping(`{"a":${numbers},"b":${object}}`, [["a"], ["b"]]) as Record<
      string,
      RawJson
    >;
    expect([read["a"]?.text, read["b"]?.text]).toEqual([numbers, object]);
  });

  test("a byte order mark, two documents, nothing", () => {
    for (const text of [
      "\ufeff{}",
      "{}{}",
      "",
      " ",
      "{'a':1}",
      "{a:1}",
      "[1,]",
      "NaN",
      '"\u0001"',
    ]) {
      expect(fault(text).reason).toBe("malformed-json");
    }
  });
});

test("a key named __proto__ is a member and changes no prototype", () => {
  const read = parseKeeping('{"__proto__":{"admin":true}}', []) as Record<string, unknown>;
  expect(Object.keys(read)).toEqual(["__proto__"]);
  expect(read["admin"]).toBeUndefined();
});
