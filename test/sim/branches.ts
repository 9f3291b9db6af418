/**
 * Counts which way every condition of some sources went. A copy of them is edited: each operand of a condition passes
 * through a counter, each `switch` tells which case it took. The runtime's own coverage knows lines only.
 *
 * Counted are `if`, `?:`, the conditions of `while`, `do` and `for`, the operands of `&&`, `||` and `??`, what `?.` is
 * asked of, `for … of` (no turn, a turn), cases, `catch`, values by default (only that they were taken), and assertions
 * (`invariant`, and an `if` that throws an InvariantViolation). Not: callbacks that never ran, and `in`, for there is none.
 */
import { join } from "node:path";
import ts from "typescript";
import { NO_TURN } from "./coverage.ts";

/** One outcome of one condition. */
export interface Branch {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly text: string;
  readonly outcome: string;
  /** Of an assertion: to be reached, it would have to fail. */
  readonly fails: boolean;
}

export interface Counted {
  readonly text: string;
  readonly branches: readonly Branch[];
}

/** Where the counts are written when the process ends: one number a branch, in the order of the branches. */
export const BRANCHES_VARIABLE = "FLOTILLA_SIM_BRANCHES";
const COUNTERS = "branch-counters.ts";
const TEXT_MAX = 70;

/** The module that counts; every edited file imports it. */
const COUNTERS_TEXT = `
import { writeFileSync } from "node:fs";
const counts = new Map<number, number>();
const hit = (id: number): void => {
  counts.set(id, (counts.get(id) ?? 0) + 1);
};
export function either<T>(id: number, value: T): T {
  hit(value ? id : id + 1);
  return value;
}
export function nullish<T>(id: number, value: T): T {
  hit(value === null || value === undefined ? id : id + 1);
  return value;
}
export function* each<T>(id: number, values: Iterable<T>): Generator<T, void> {
  let turns = 0;
  for (const value of values) {
    if (turns++ === 0) hit(id + 1);
    yield value;
  }
  if (turns === 0) hit(id);
}
export function once<T>(id: number, value: T): T {
  hit(id);
  return value;
}
export function which<T>(id: number, cases: readonly unknown[], value: T): T {
  const at = cases.indexOf(value);
  hit(id + (at < 0 ? cases.length : at));
  return value;
}
export function writeCounts(): void {
  const file = process.env["${BRANCHES_VARIABLE}"];
  if (file !== undefined) writeFileSync(file, JSON.stringify([...counts]));
}
process.on("exit", writeCounts);
`;

/** For the test runner, which does not tell of its exit: to be loaded before the tests. Beside the edited modules. */
export const COUNTS_AFTER_TESTS = "branch-counters-after-tests.ts";
const COUNTS_AFTER_TESTS_TEXT = `
import { afterAll } from "bun:test";
import { writeCounts } from "./${COUNTERS}";
afterAll(writeCounts);
`;

/** Edits every module directly in `folder` of the copy at `root`; the branches are numbered in the order given. */
export async function countBranches(root: string, folder: string): Promise<readonly Branch[]> {
  const all: Branch[] = [];
  const names = [...new Bun.Glob("*.ts").scanSync({ cwd: join(root, folder) })].sort();
  for (const name of names) {
    const path = join(root, folder, name);
    const { text, branches } = counted(`${folder}${name}`, await Bun.file(path).text(), all.length);
    all.push(...branches);
    await Bun.write(path, text);
  }
  await Bun.write(join(root, folder, COUNTERS), COUNTERS_TEXT);
  await Bun.write(join(root, folder, COUNTS_AFTER_TESTS), COUNTS_AFTER_TESTS_TEXT);
  return all;
}

/** `firstId`: the number of its first branch. */
export function counted(file: string, text: string, firstId: number): Counted {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const branches: Branch[] = [];
  const inserts: { readonly at: number; readonly order: number; readonly text: string }[] = [];
  const wrap = (node: ts.Node, before: string): void => {
    const [start, end] = [node.getStart(source), node.getEnd()];
    // Of those that begin at one place the outer one opens first; of those that end at one the inner one closes first.
    inserts.push({ at: start, order: text.length - end, text: before });
    inserts.push({ at: end, order: -start - text.length, text: ")" });
  };
  const insert = (at: number, what: string): void => {
    inserts.push({ at, order: 0, text: what });
  };
  /** `fails`: the outcome that an assertion would have to fail for. */
  const add = (
    node: ts.Node,
    outcomes: readonly string[],
    fails: string | null = null,
    what = node.getText(source),
  ): number => {
    const id = firstId + branches.length;
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
    const whole = what.replaceAll(/\s+/g, " ");
    const shown = whole.length > TEXT_MAX ? `${whole.slice(0, TEXT_MAX)}…` : whole;
    for (const outcome of outcomes)
      branches.push({ file, line, text: shown, outcome, fails: outcome === fails });
    return id;
  };
  /** `fatal`: the value of the whole for which an assertion fails; null: of something that decides nothing by itself. */
  const condition = (node: ts.Expression, fatal: boolean | null = null): void => {
    const bare = ts.isParenthesizedExpression(node) ? node.expression : node;
    if (ts.isBinaryExpression(bare) && isLogical(bare)) {
      const isAnd = bare.operatorToken.kind === ts.SyntaxKind.AmpersandAmpersandToken;
      condition(bare.left, fatal === !isAnd ? fatal : null);
      condition(bare.right, fatal);
    } else if (bare !== node) condition(bare, fatal);
    else {
      const fails = fatal === null ? null : String(fatal);
      wrap(node, `$either(${add(node, ["true", "false"], fails)}, `);
    }
  };
  const visit = (node: ts.Node): void => {
    const inside = (child: ts.Node): void => visit(child);
    if (ts.isIfStatement(node)) condition(node.expression, isBroken(node) ? true : null);
    else if (ts.isWhileStatement(node) || ts.isDoStatement(node)) condition(node.expression);
    else if (ts.isConditionalExpression(node)) condition(node.condition);
    else if (ts.isForStatement(node) && node.condition !== undefined) condition(node.condition);
    else if (ts.isForOfStatement(node)) {
      const { initializer, expression } = node;
      const what = `${initializer.getText(source)} of ${expression.getText(source)}`;
      wrap(expression, `$each(${add(expression, [NO_TURN, "a turn"], null, what)}, `);
    } else if (ts.isCatchClause(node))
      insert(
        node.block.getStart(source) + 1,
        ` $once(${add(node, ["caught"], null, "catch")}, 0);`,
      );
    else if ((ts.isParameter(node) || ts.isBindingElement(node)) && node.initializer !== undefined)
      wrap(node.initializer, `$once(${add(node, ["by default"])}, `);
    else if (ts.isCallExpression(node) && isAssertion(node)) {
      const [asserted] = node.arguments;
      if (asserted !== undefined) condition(asserted, false);
    } else if (ts.isBinaryExpression(node) && isLogical(node) && !isCondition(node))
      // Of what is only a value the last operand decides nothing.
      condition(node.left);
    else if (
      ts.isBinaryExpression(node) &&
      node.operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken
    )
      wrap(node.left, `$nullish(${add(node.left, ["null", "not null"])}, `);
    else if (ts.isPropertyAccessExpression(node) && node.questionDotToken !== undefined) {
      const what = `${node.expression.getText(source)}?.`;
      wrap(node.expression, `$nullish(${add(node, ["null", "not null"], null, what)}, `);
    } else if (ts.isSwitchStatement(node)) {
      const clauses = node.caseBlock.clauses;
      const values = clauses.filter(ts.isCaseClause).map(({ expression }) => expression);
      const texts = values.map((value) => value.getText(source));
      const others = clauses.some(ts.isDefaultClause) ? ["default"] : [];
      const id = add(node.expression, [...texts.map((each) => `case ${each}`), ...others]);
      wrap(node.expression, `$which(${id}, [${texts.join(", ")}], `);
    } else if (
      (ts.isElementAccessExpression(node) || ts.isCallExpression(node)) &&
      node.questionDotToken !== undefined
    )
      throw new Error(`${file}: ${node.getText(source)} is of a kind that is not counted`);
    ts.forEachChild(node, inside);
  };
  visit(source);
  let edited = "";
  let from = 0;
  for (const each of inserts.toSorted((a, b) => a.at - b.at || a.order - b.order)) {
    edited += text.slice(from, each.at) + each.text;
    from = each.at;
  }
  edited += text.slice(from);
  const imported = `import { each as $each, either as $either, nullish as $nullish, once as $once, which as $which } from "./${COUNTERS}";\n`;
  return { text: imported + edited, branches };
}

function isLogical({ operatorToken: { kind } }: ts.BinaryExpression): boolean {
  return kind === ts.SyntaxKind.AmpersandAmpersandToken || kind === ts.SyntaxKind.BarBarToken;
}

/** It was counted with the condition that it is a part of. */
function isCondition(node: ts.Expression): boolean {
  const { parent } = node;
  if (ts.isParenthesizedExpression(parent)) return isCondition(parent);
  if (ts.isBinaryExpression(parent)) return isLogical(parent);
  if (ts.isIfStatement(parent) || ts.isWhileStatement(parent) || ts.isDoStatement(parent))
    return parent.expression === node;
  if (ts.isConditionalExpression(parent)) return parent.condition === node;
  if (ts.isCallExpression(parent)) return isAssertion(parent) && parent.arguments[0] === node;
  return ts.isForStatement(parent) && parent.condition === node;
}

function isAssertion(node: ts.CallExpression): boolean {
  return node.expression.getText() === "invariant";
}

/** `if (…) throw new InvariantViolation(…)` */
function isBroken({ thenStatement }: ts.IfStatement): boolean {
  return (
    ts.isThrowStatement(thenStatement) &&
    ts.isNewExpression(thenStatement.expression) &&
    thenStatement.expression.expression.getText() === "InvariantViolation"
  );
}
