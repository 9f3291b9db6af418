import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cleanDocument } from "../../src/api/openapi.ts";
import { harness, NOW, problem, uuidAt } from "./harness.ts";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

/** As far as the document's schemas go. */
interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly nullable?: boolean;
  readonly enum?: readonly unknown[];
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
}

async function documentOf() {
  const response = await harness().call("GET", "/swagger/json");
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/json");
  return (await response.json()) as {
    openapi: string;
    info: { version: string };
    paths: Record<
      string,
      Record<
        string,
        {
          operationId: string;
          requestBody?: { content: { "application/json": { example?: unknown } } };
          responses: Record<string, { description: string }>;
        }
      >
    >;
    components: { schemas: Record<string, unknown> };
  };
}

describe("the document", () => {
  test("is valid for two independent validators", async () => {
    const document = await documentOf();
    const { Validator } = await import("@seriousme/openapi-schema-validator");
    const first = await new Validator().validate(structuredClone(document));
    expect(first).toMatchObject({ valid: true });
    const { validate } = await import("@readme/openapi-parser");
    const second = await validate(structuredClone(document) as never);
    expect(second).toMatchObject({ valid: true });
  });

  test("is found invalid by both when it is broken, so that the test above can fail", async () => {
    const broken = await documentOf();
    for (const methods of Object.values(broken.paths)) {
      for (const operation of Object.values(methods)) operation.responses = { 200: {} as never };
    }
    const { Validator } = await import("@seriousme/openapi-schema-validator");
    expect(await new Validator().validate(structuredClone(broken))).toMatchObject({ valid: false });
    const { validate } = await import("@readme/openapi-parser");
    expect(await validate(structuredClone(broken) as never)).toMatchObject({ valid: false });
  });

  test("gives every body an example that the API takes as it is", async () => {
    const document = await documentOf();
    const bodies = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, { requestBody }]) =>
        requestBody === undefined ? [] : [{ path, method, requestBody }],
      ),
    );
    expect(bodies.length).toBeGreaterThan(10);
    for (const { path, method, requestBody } of bodies) {
      const { example } = requestBody.content["application/json"];
      expect([path, example]).toEqual([path, expect.any(Object)]);
      const id = uuidAt(NOW);
      const response = await harness().call(method.toUpperCase(), path.replace(/\{.*?\}/, id), {
        body: JSON.stringify(example),
      });
      // Nobody has this task or lease; nothing is wrong with what was sent.
      expect([path, [200, 201, 404].includes(response.status), response.status]).toEqual([
        path,
        true,
        response.status,
      ]);
    }
  });

  test("has an operation id of its own for every operation, problems, and this build's version", async () => {
    const document = await documentOf();
    expect(document.openapi).toStartWith("3.0");
    expect(document.info.version).toBe("9.9.9");
    const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));
    const ids = operations.map((operation) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toContain("submitTask");
    for (const operation of operations) {
      expect(Object.keys(operation.responses)).toContain("500");
    }
  });

  test("names no model that is missing, and has no model that nobody names", async () => {
    const document = await documentOf();
    const text = JSON.stringify(document);
    const named = new Set(
      [...text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)].map((match) => match[1] ?? ""),
    );
    expect([...named].toSorted()).toEqual(Object.keys(document.components.schemas).toSorted());
    expect(text).not.toContain('"$id"');
    expect(text).not.toContain('"type":"null"');
  });

  test("describes answers as they are: those of a session are checked against it", async () => {
    const document = await documentOf();
    const models = document.components.schemas as Readonly<Record<string, Schema>>;
    const conform = (schema: Schema, value: unknown, at: string, faults: string[]): void => {
      const { $ref } = schema;
      if ($ref !== undefined) {
        conform(models[$ref.slice("#/components/schemas/".length)] ?? {}, value, at, faults);
        return;
      }
      if (value === null && (schema.nullable === true || schema.type === undefined)) return;
      const isArray = Array.isArray(value);
      const type = value === null ? "null" : isArray ? "array" : typeof value;
      const wanted = schema.type === "integer" ? "number" : schema.type;
      if (wanted !== undefined && type !== wanted) faults.push(`${at}: ${type}, not ${wanted}`);
      if (schema.enum !== undefined && !schema.enum.includes(value)) faults.push(`${at}: enum`);
      if (isArray) {
        for (const [index, item] of value.entries()) {
          conform(schema.items ?? {}, item, `${at}/${index}`, faults);
        }
      } else if (schema.properties !== undefined && type === "object") {
        const members = value as Readonly<Record<string, unknown>>;
        for (const key of schema.required ?? []) {
          if (!(key in members)) faults.push(`${at}/${key}: missing`);
        }
        for (const [key, member] of Object.entries(members)) {
          const inner = schema.properties[key];
          if (inner === undefined) faults.push(`${at}/${key}: not described`);
          else conform(inner, member, `${at}/${key}`, faults);
        }
      }
    };
    const wrong: string[] = [];
    conform({ $ref: "#/components/schemas/Ok" }, { status: "no", x: 1 }, "", wrong);
    expect(wrong).toEqual(["/status: enum", "/x: not described"]);
    const { call } = harness();
    const conforms = async (model: string, response: Response): Promise<void> => {
      const faults: string[] = [];
      conform({ $ref: `#/components/schemas/${model}` }, await response.json(), model, faults);
      expect(faults).toEqual([]);
    };
    const sent = await call("POST", "/api/tasks", { body: { name: "x", payload: { a: 1 } } });
    const path = sent.headers.get("location") ?? "";
    await conforms("Task", sent);
    await conforms(
      "Submitted",
      await call("POST", "/api/tasks/bulk", { body: { tasks: [{ name: "x" }] } }),
    );
    await conforms(
      "Claimed",
      await call("POST", "/api/leases/claim", { body: { worker_id: "w", max: 9 } }),
    );
    await conforms("Task", await call("GET", path));
    await conforms("TaskList", await call("GET", "/api/tasks"));
    await conforms("Attempts", await call("GET", `${path}/attempts`));
    await conforms("Logs", await call("GET", `${path}/logs`));
    await conforms("Stats", await call("GET", "/api/stats"));
    await conforms("Cluster", await call("GET", "/api/cluster"));
    await conforms("Settings", await call("GET", "/api/cluster/config"));
    await conforms("Workers", await call("GET", "/api/workers"));
    await conforms("Health", await call("GET", "/health"));
    await conforms("Problem", await call("GET", "/nope"));
    await conforms("Problem", await call("POST", "/api/tasks", { body: { foo: 1 } }));
    const id = path.slice("/api/tasks/".length);
    await conforms(
      "Ok",
      await call("POST", `/api/leases/${id}/fail`, {
        body: { worker_id: "w", attempt: 1, fence: 1, error: "x" },
      }),
    );
    await conforms("Task", await call("GET", path));
    await conforms("Cleared", await call("DELETE", "/api/tasks/clear"));
  });
});

test("cleaning turns null branches into nullable, keeps references, and changes nothing else", () => {
  const input = {
    a: { anyOf: [{ type: "string" }, { type: "null" }], description: "d" },
    b: { anyOf: [{ $ref: "#/x" }, { type: "null" }] },
    c: { anyOf: [{ type: "string" }, { type: "integer" }, { type: "null" }] },
    d: { anyOf: [{ type: "string" }, { type: "object", $id: "gone" }] },
    e: [null, 1, "x", { $schema: "gone", keep: [] }],
  };
  const before = JSON.stringify(input);
  expect(cleanDocument(input)).toEqual({
    a: { type: "string", description: "d", nullable: true },
    b: { allOf: [{ $ref: "#/x" }], nullable: true },
    c: { anyOf: [{ type: "string" }, { type: "integer" }], nullable: true },
    d: { anyOf: [{ type: "string" }, { type: "object" }] },
    e: [null, 1, "x", { keep: [] }],
  });
  expect(JSON.stringify(input)).toBe(before);
});

describe("the page", () => {
  test("asks for nothing but files of this process, and has no inline script or style", async () => {
    const { call } = harness();
    const page = await call("GET", "/swagger");
    const html = await page.text();
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).not.toContain("unsafe");
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)/);
    expect(html).not.toMatch(/<style|\sstyle=|\son\w+=/);
    const files = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? "");
    expect(files.length).toBe(5);
    for (const file of files) {
      expect(file).toStartWith("/swagger/assets/");
      const response = await call("GET", file);
      expect([file, response.status, (await response.arrayBuffer()).byteLength > 40]).toEqual([
        file,
        200,
        true,
      ]);
      expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    }
    const types = await Promise.all(
      files.map(async (file) => (await call("GET", file)).headers.get("content-type")),
    );
    expect(types).toEqual([
      "image/png",
      "text/css; charset=utf-8",
      "text/css; charset=utf-8",
      "text/javascript; charset=utf-8",
      "text/javascript; charset=utf-8",
    ]);
  });

  test("has no other file", async () => {
    expect((await problem(await harness().call("GET", "/swagger/assets/x.js"))).status).toBe(404);
  });
});
