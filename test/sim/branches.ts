/**
 * Counts which way every condition of some sources went. A copy of them is edited: each operand of a condition passes
 * through a counter, each `switch` tells which case it took. The runtime's own coverage knows lines only.
 *
 * Counted are `if`, `?:`, loops' conditions, the operands of `&&`, `||` and `??`, and cases; not optional chaining.
 */
import { join } from "node:path";
import ts from "typescript";

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
export function which<T>(id: number, cases: readonly unknown[], value: T): T {
  const at = cases.indexOf(value);
  hit(id + (at < 0 ? cases.length : at));
  return value;
}
process.on("exit", () => {
  const file = process.env["${BRANCHES_VARIABLE}"];
  if (file !== undefined) writeFileSync(file, JSON.stringify([...counts]));
});
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
  const add = (node: ts.Node, outcomes: readonly string[], fails = false): number => {
    const id = firstId + branches.length;
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
    const whole = node.getText(source).replaceAll(/\s+/g, " ");
    const shown = whole.length > TEXT_MAX ? `${whole.slice(0, TEXT_MAX)}…` : whole;
    for (const outcome of outcomes)
      branches.push({
        file,
        line,
        text: shown,
        outcome,
        fails: fails && (outcome === "false" || outcome === "null"),
      });
    return id;
  };
  /** `decides`: it alone can make the whole false. */
  const condition = (node: ts.Expression, decides: boolean): void => {
    const bare = ts.isParenthesizedExpression(node) ? node.expression : node;
    if (ts.isBinaryExpression(bare) && isLogical(bare)) {
      const isAnd = bare.operatorToken.kind === ts.SyntaxKind.AmpersandAmpersandToken;
      condition(bare.left, decides && isAnd);
      condition(bare.right, decides);
    } else if (bare !== node) condition(bare, decides);
    else wrap(node, `$either(${add(node, ["true", "false"], decides)}, `);
  };
  const visit = (node: ts.Node): void => {
    const inside = (child: ts.Node): void => visit(child);
    if (ts.isIfStatement(node) || ts.isWhileStatement(node) || ts.isDoStatement(node))
      condition(node.expression, false);
    else if (ts.isConditionalExpression(node)) condition(node.condition, false);
    else if (ts.isForStatement(node) && node.condition !== undefined)
      condition(node.condition, false);
    else if (ts.isBinaryExpression(node) && isLogical(node) && !isCondition(node)) {
      // Of what is only a value the last operand decides nothing.
      if (isAsserted(node)) condition(node, true);
      else condition(node.left, false);
    } else if (
      ts.isBinaryExpression(node) &&
      node.operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken
    )
      wrap(node.left, `$nullish(${add(node.left, ["null", "not null"])}, `);
    else if (ts.isSwitchStatement(node)) {
      const clauses = node.caseBlock.clauses;
      const values = clauses.filter(ts.isCaseClause).map(({ expression }) => expression);
      const texts = values.map((value) => value.getText(source));
      const others = clauses.some(ts.isDefaultClause) ? ["default"] : [];
      const id = add(node.expression, [...texts.map((each) => `case ${each}`), ...others]);
      wrap(node.expression, `$which(${id}, [${texts.join(", ")}], `);
    }
    ts.forEachChild(node, inside);
  };
  visit(source);
  let edited = "";
  let from = 0;
  for (const insert of inserts.toSorted((a, b) => a.at - b.at || a.order - b.order)) {
    edited += text.slice(from, insert.at) + insert.text;
    from = insert.at;
  }
  edited += text.slice(from);
  const imported = `import { either as $either, nullish as $nullish, which as $which } from "./${COUNTERS}";\n`;
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
  return ts.isForStatement(parent) && parent.condition === node;
}

/** What `invariant` is given. */
function isAsserted(node: ts.Expression): boolean {
  const { parent } = node;
  return (
    ts.isCallExpression(parent) &&
    parent.arguments[0] === node &&
    parent.expression.getText() === "invariant"
  );
}
