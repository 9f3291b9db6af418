/**
 * What holds the parts apart: imports between the folders of src/ point down only, no file imports itself by
 * a detour, and the parts that must be deterministic reach nothing but what they are given.
 *
 * It reads the sources with the compiler's parser, so that strings and comments count for nothing. What a
 * deterministic file may use is a list of what is allowed: a new global of the runtime is refused until
 * somebody has looked at it.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { dirname, join, relative, resolve } from "node:path";
import ts from "typescript";

// A machine that is busy with other work is slow, not wrong.
setDefaultTimeout(30_000);

const ROOT = resolve(import.meta.dir, "..");

/** What each folder may import of the project, itself aside. What is not named here is free. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "src/raft": [],
  "src/replica": ["src/raft"],
  "src/queue": ["src/replica", "src/raft"],
  "src/storage": ["src/system/answers.ts", "src/replica/ports.ts", "src/raft"],
  "src/transport": ["src/replica/ports.ts", "src/raft"],
  "src/system": ["src/replica/ports.ts"],
  "src/rescue": ["src/storage/log-format.ts", "src/queue", "src/replica", "src/raft"],
  "src/executor": ["src/system/answers.ts", "src/queue", "src/replica", "src/raft"],
  "src/api": ["src/queue", "src/replica", "src/raft"],
  "src/dashboard": ["views", "src/queue", "src/replica", "src/raft"],
  "src/config": ["src/raft"],
  "src/client": ["src/api/schema.ts", "src/executor"],
  views: ["src/queue/types.ts", "src/queue/service.ts"],
};
/** What composes the parts, and its configuration, know everybody. */
const FREE = [
  "src/member.ts",
  "src/node.ts",
  "src/config.ts",
  "src/index.ts",
  "src/rescue.ts",
  "src/rebirth.ts",
  "src/restore.ts",
];

/** Folders whose behaviour is a function of what they are given, and the packages that they may import. */
const DETERMINISTIC: Readonly<Record<string, readonly string[]>> = {
  "src/raft": [],
  "src/replica": [],
  "src/queue": ["bun:sqlite"],
};

/** Globals of the language that neither measure nor draw nor reach out. */
const PURE_GLOBALS = new Set(
  `Array ArrayBuffer BigInt Boolean DataView Error Infinity Int32Array JSON Map Math NaN Number Object Promise
  RangeError Set String Symbol SyntaxError TextDecoder TextEncoder TypeError Uint32Array Uint8Array WeakMap
  WeakSet parseInt AbortController AbortSignal Buffer structuredClone`.split(/\s+/),
);

/** Members that make a pure global impure: the clock, randomness, the locale and the time zone. */
const IMPURE_MEMBERS = new Set([
  "Math.random",
  "AbortSignal.timeout",
  // Of a function it compiles any text.
  "constructor",
  "localeCompare",
  "toLocaleString",
  "toLocaleDateString",
  "toLocaleTimeString",
  "toLocaleLowerCase",
  "toLocaleUpperCase",
]);

/** Those of them that have such members: only a member of theirs may be used, by its name. */
const PARTLY_PURE = new Set(["Math", "AbortSignal"]);

/** Functions of SQLite that read a clock or draw, in the text of a statement. */
const IMPURE_SQL =
  /\b(?:random|randomblob|unixepoch|julianday|strftime|datetime|date|time|timediff)\s*\(|\bcurrent_(?:timestamp|time|date)\b/i;

/** Uses beyond the pure ones, each for a reason. */
const EXCEPTIONS: Readonly<Record<string, readonly string[]>> = {
  // SHA-256 over canonical bytes: a function of its input.
  "src/queue/hash.ts": ["Bun.CryptoHasher"],
  // Starts the reader thread where the state is in a file. It answers queries, and no transition waits for it.
  "src/queue/task-reader.ts": ["Worker", "URL", "import.meta"],
  // Starts the thread that reads all rows for the consistency check; no transition waits for it.
  "src/queue/auditor.ts": ["Worker", "URL", "import.meta"],
  // The two threads themselves, the only ones that hear messages (`self`): they read on a connection of their own that
  // writes nothing, and no state depends on what they answer. They end themselves (`process`); the first waits on the flag that
  // pauses readers, the second rests for as long as it worked.
  "src/queue/reader-thread.ts": ["Atomics", "process", "self"],
  "src/queue/audit-thread.ts": ["Atomics", "SharedArrayBuffer", "performance", "process", "self"],
};

interface Import {
  /** Path from the root, or the name of a package. */
  readonly target: string;
  readonly isPackage: boolean;
  readonly typeOnly: boolean;
}

const files = [...new Bun.Glob("{src,views}/**/*.{ts,tsx}").scanSync(ROOT)].toSorted();
const sources = new Map<string, ts.SourceFile>();
for (const file of files) {
  const text = await Bun.file(join(ROOT, file)).text();
  sources.set(file, ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true));
}
const imports = new Map([...sources].map(([file, source]) => [file, importsOf(file, source)]));

describe("The architecture", () => {
  test("imports between folders point down only", () => {
    const upward = eachImport(({ file, target, isPackage }) => {
      if (isPackage || FREE.includes(file)) return false;
      const own = folderOf(file);
      if (isUnder(target, own)) return false;
      const allowed = MAY_IMPORT[own];
      if (allowed === undefined) throw new Error(`${file}: no rule says what ${own} may import`);
      return !allowed.some((part) => isUnder(target, part));
    });
    expect(upward).toEqual([]);
  });

  test("of the service the views know its types only, and so does the client of the API", () => {
    const values = eachImport(
      ({ file, target, typeOnly }) =>
        !typeOnly &&
        ((isUnder(file, "views") && target === "src/queue/service.ts") ||
          (isUnder(file, "src/client") && isUnder(target, "src/api"))),
    );
    expect(values).toEqual([]);
  });

  test("the client brings no code of the server and no package along", () => {
    const values = eachImport(
      ({ file, target, typeOnly }) =>
        isUnder(file, "src/client") &&
        !isUnder(target, "src/client") &&
        target !== "src/executor/errors.ts" &&
        !typeOnly,
    );
    expect(values).toEqual([]);
  });

  test("no file imports itself by a detour", () => {
    expect(cycles()).toEqual([]);
  });

  test("no sources but tests import from test", () => {
    expect(eachImport(({ target }) => isUnder(target, "test"))).toEqual([]);
  });

  test("the deterministic parts import no clock, network, disk or framework", () => {
    const packages = eachImport(({ file, target, isPackage }) => {
      const allowed = DETERMINISTIC[folderOf(file)];
      return allowed !== undefined && isPackage && !allowed.includes(target);
    });
    expect(packages).toEqual([]);
  });

  test("the deterministic parts use no clock, randomness, timer, network or disk", () => {
    const found = impureUses(
      new Map([...sources].filter(([file]) => DETERMINISTIC[folderOf(file)] !== undefined)),
    );
    const unexpected = found.filter(({ file, use }) => !(EXCEPTIONS[file] ?? []).includes(use));
    expect(unexpected.map(({ file, line, use }) => `${file}:${line} uses ${use}`)).toEqual([]);
    const needed = new Set(found.map(({ file, use }) => `${file} ${use}`));
    const stale = Object.entries(EXCEPTIONS).flatMap(([file, uses]) =>
      uses.filter((use) => !needed.has(`${file} ${use}`)).map((use) => `${file} ${use}`),
    );
    expect(stale).toEqual([]);
  });

  test("the search for impure uses finds each kind, and is not misled by names", () => {
    const text = `
      import { db, fetch as got } from "./other.ts";
      // Date.now() in a comment, and "setTimeout" in a string, are nothing.
      export const label = "setTimeout(fetch)";
      export function pure(setTimeout: () => void, at: { fetch(): void; Date: number }) {
        const { fetch, Date: day } = { fetch: 1, Date: at.Date };
        setTimeout();
        at.fetch();
        return { fetch, day, got };
      }
      export const impure = [Date.now(), Math.random(), "a".localeCompare("b"), new Date(0)];
      setTimeout(pure, 1);
      void fetch("/"), performance.now(), crypto.randomUUID(), process.env, globalThis.x;
      export const lazy = import("node:fs"), here = import.meta.url, sleeper = Bun.sleep;
      export const due = AbortSignal.timeout(5), random = Math["random"];
      declare const Worker: unknown;
      declare global { var Date2: unknown; }
      void [Worker, Date2];
      const { timeout } = AbortSignal, { constructor: make } = pure, plain = { constructor: 1 };
      db.run("SELECT random(), datetime('now')"), db.run("UPDATE t SET at = CURRENT_TIMESTAMP");
      // A column of that name, and a word that ends like one, are nothing.
      const columns = "SELECT date, updated_at, max(run_at) FROM t WHERE outdated(id)";
      const { random: dice } = Math, M = Math, again = (Math as any)[\`random\`]();
      (() => 0).constructor("return 1")(), db.query(\`SELECT \${M}, unixepoch()\`);
    `;
    const source = ts.createSourceFile("probe.ts", text, ts.ScriptTarget.Latest, true);
    expect(impureUses(new Map([["probe.ts", source]])).map(({ use }) => use)).toEqual([
      "Date",
      "Math.random",
      "localeCompare",
      "Date",
      "setTimeout",
      "fetch",
      "performance",
      "crypto",
      "process",
      "globalThis",
      "import()",
      "import.meta",
      "Bun.sleep",
      "AbortSignal.timeout",
      "Math.random",
      "Worker",
      "Date2",
      "AbortSignal",
      "constructor",
      "SQL",
      "SQL",
      "Math",
      "Math",
      "Math.random",
      "constructor",
      "SQL",
    ]);
  });

  test("an import is found in each way to write one", () => {
    const text = `
      import "./a.ts";
      import type { B } from "./b.ts";
      export * from "./c.ts";
      type D = import("./d.ts").D;
      const e = import("./e.ts"), f = import(\`./f.ts\`);
      import fs = require("node:fs");
    `;
    const source = ts.createSourceFile("src/probe.ts", text, ts.ScriptTarget.Latest, true);
    expect(importsOf("src/probe.ts", source).map(({ target }) => target)).toEqual([
      ...["a", "b", "c", "d", "e", "f"].map((name) => `src/${name}.ts`),
      "node:fs",
    ]);
  });
});

/** Imports for which `isWrong` holds, as lines for the report. */
function eachImport(isWrong: (found: Import & { readonly file: string }) => boolean): string[] {
  return [...imports].flatMap(([file, list]) =>
    list.filter((found) => isWrong({ ...found, file })).map(({ target }) => `${file} → ${target}`),
  );
}

function importsOf(file: string, source: ts.SourceFile): Import[] {
  const found: Import[] = [];
  const add = (specifier: string, typeOnly: boolean): void => {
    const isPackage = !specifier.startsWith(".");
    const path = join(ROOT, dirname(file), specifier);
    found.push({ target: isPackage ? specifier : relative(ROOT, path), isPackage, typeOnly });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) && ts.isStringLiteral(node.moduleSpecifier)) {
      add(node.moduleSpecifier.text, isTypeOnly(node.importClause));
    } else if (ts.isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
      if (ts.isStringLiteral(node.moduleSpecifier)) add(node.moduleSpecifier.text, node.isTypeOnly);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) add(node.argument.literal.text, true);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [specifier] = node.arguments;
      if (specifier !== undefined && ts.isStringLiteralLike(specifier)) add(specifier.text, false);
    } else if (ts.isExternalModuleReference(node) && ts.isStringLiteralLike(node.expression)) {
      add(node.expression.text, false);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function isTypeOnly(clause: ts.ImportClause | undefined): boolean {
  if (clause === undefined) return false;
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return true;
  const { name, namedBindings } = clause;
  if (name !== undefined || namedBindings === undefined || !ts.isNamedImports(namedBindings))
    return false;
  return namedBindings.elements.length > 0 && namedBindings.elements.every((e) => e.isTypeOnly);
}

/** Each cycle of imports once, as a path that ends where it begins. Types count: they bind files too. */
function cycles(): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const walk = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      found.push([...path.slice(at), file].join(" → "));
      return;
    }
    if (done.has(file)) return;
    for (const { target, isPackage } of imports.get(file) ?? [])
      if (!isPackage) walk(target, [...path, file]);
    done.add(file);
  };
  for (const file of imports.keys()) walk(file, []);
  return found;
}

interface ImpureUse {
  readonly file: string;
  readonly line: number;
  readonly use: string;
}

/**
 * What the files use of the world around them. Without a library and without its imports resolved, the type
 * checker knows exactly the names that a file declares or imports: any other value is a global.
 */
function impureUses(parts: ReadonlyMap<string, ts.SourceFile>): ImpureUse[] {
  const program = ts.createProgram({
    rootNames: [...parts.keys()],
    options: {
      noLib: true,
      noResolve: true,
      types: [],
      noEmit: true,
      target: ts.ScriptTarget.Latest,
    },
    host: {
      ...ts.createCompilerHost({}),
      getSourceFile: (name) => parts.get(name),
      fileExists: (name) => parts.has(name),
      getCurrentDirectory: () => "",
    },
  });
  const checker = program.getTypeChecker();
  const found: ImpureUse[] = [];
  for (const [file, source] of parts) {
    const visit = (node: ts.Node): void => {
      if (ts.isTypeNode(node) && !ts.isExpressionWithTypeArguments(node)) return;
      if (isDeclareStatement(node)) return;
      const use = impureUse(node, checker);
      if (use !== null) {
        const { line } = source.getLineAndCharacterOfPosition(node.getStart(source));
        found.push({ file, line: line + 1, use });
      }
      ts.forEachChild(node, visit);
    };
    visit(source);
  }
  return found;
}

function impureUse(node: ts.Node, checker: ts.TypeChecker): string | null {
  if (ts.isMetaProperty(node)) return "import.meta";
  if (node.kind === ts.SyntaxKind.ImportKeyword && ts.isCallExpression(node.parent))
    return "import()";
  const member = memberOf(node);
  if (member !== null && IMPURE_MEMBERS.has(member.name)) return member.name;
  if (ts.isBindingElement(node)) {
    const taken = node.propertyName ?? node.name;
    return ts.isIdentifier(taken) && IMPURE_MEMBERS.has(taken.text) ? taken.text : null;
  }
  if (isText(node) && IMPURE_SQL.test(node.text)) return "SQL";
  if (!ts.isIdentifier(node) || !isReference(node) || isDeclared(node, checker)) return null;
  if (PURE_GLOBALS.has(node.text)) {
    const whole = memberOf(bareParent(node));
    if (whole === null || bare(whole.of) !== node)
      return PARTLY_PURE.has(node.text) ? node.text : null;
    const name = `${node.text}.${whole.name}`;
    return IMPURE_MEMBERS.has(name) ? name : null;
  }
  const whole = memberOf(node.parent);
  return node.text === "Bun" && whole?.of === node ? `Bun.${whole.name}` : node.text;
}

/** `of.name` and `of["name"]`. */
function memberOf(node: ts.Node): { readonly of: ts.Node; readonly name: string } | null {
  if (ts.isPropertyAccessExpression(node)) return { of: node.expression, name: node.name.text };
  if (ts.isElementAccessExpression(node) && ts.isStringLiteralLike(node.argumentExpression))
    return { of: node.expression, name: node.argumentExpression.text };
  return null;
}

type Text = ts.StringLiteralLike | ts.TemplateHead | ts.TemplateMiddle | ts.TemplateTail;

function isText(node: ts.Node): node is Text {
  return (
    ts.isStringLiteralLike(node) ||
    ts.isTemplateHead(node) ||
    ts.isTemplateMiddleOrTemplateTail(node)
  );
}

/** What stands around it, past parentheses and what only the type checker sees. */
function bareParent({ parent }: ts.Node): ts.Node {
  return isWrapping(parent) ? bareParent(parent) : parent;
}

/** What stands in it. */
function bare(node: ts.Node): ts.Node {
  return isWrapping(node) ? bare(node.expression) : node;
}

function isWrapping(
  node: ts.Node,
): node is
  ts.ParenthesizedExpression | ts.AsExpression | ts.NonNullExpression | ts.SatisfiesExpression {
  return (
    ts.isParenthesizedExpression(node) ||
    ts.isAsExpression(node) ||
    ts.isNonNullExpression(node) ||
    ts.isSatisfiesExpression(node)
  );
}

/** It only tells the type checker of something. */
function isDeclareStatement(node: ts.Node): boolean {
  const modifiers = ts.canHaveModifiers(node) ? ts.getModifiers(node) : undefined;
  return modifiers?.some(({ kind }) => kind === ts.SyntaxKind.DeclareKeyword) === true;
}

function isAmbient(node: ts.Node): boolean {
  return !ts.isSourceFile(node) && (isDeclareStatement(node) || isAmbient(node.parent));
}

/** Whether the identifier stands for a value, and is not the name of a member. */
function isReference(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  if (ts.isBindingElement(parent)) return parent.propertyName !== node;
  if (ts.isImportSpecifier(parent) || ts.isExportSpecifier(parent)) return false;
  if (ts.isPropertyAssignment(parent) || ts.isMethodDeclaration(parent))
    return parent.name !== node;
  return true;
}

function isDeclared(node: ts.Identifier, checker: ts.TypeChecker): boolean {
  if (node.text === "undefined") return true;
  // The checker knows this one, but it holds all the others.
  if (node.text === "globalThis") return false;
  const symbol = ts.isShorthandPropertyAssignment(node.parent)
    ? checker.getShorthandAssignmentValueSymbol(node.parent)
    : checker.getSymbolAtLocation(node);
  if (symbol === undefined) return false;
  // What is declared without being there is a global after all.
  return symbol.declarations?.every(isAmbient) !== true;
}

/** `src/raft` of `src/raft/raft.ts`; `views` of `views/task.tsx`. */
function folderOf(file: string): string {
  const [first = "", second = ""] = file.split("/");
  return first === "src" ? `src/${second}` : first;
}

function isUnder(path: string, part: string): boolean {
  return path === part || path.startsWith(`${part}/`);
}
