/** Which items of a bulk request a refusal is about, and what it says to each. */
import type { FieldError, FlotillaError } from "./error.ts";

/** Errors by index, their pointers as if each item had been sent alone. Empty when the refusal names none. */
export function refusedItems(error: FlotillaError, list: string): Map<number, FieldError[]> {
  const named = new Map<number, FieldError[]>();
  const prefix = `/${list}/`;
  for (const { pointer, detail } of error.errors) {
    if (!pointer.startsWith(prefix)) continue;
    const [digits = ""] = pointer.slice(prefix.length).split("/", 1);
    if (!/^\d+$/.test(digits)) continue;
    const own = { pointer: pointer.slice(prefix.length + digits.length), detail };
    const known = named.get(Number(digits));
    if (known === undefined) named.set(Number(digits), [own]);
    else known.push(own);
  }
  return named;
}

export function fieldsSummary(errors: readonly FieldError[]): string {
  const [first] = errors;
  return errors.length === 1 && first !== undefined
    ? `${first.pointer}: ${first.detail}`
    : `${errors.length} fields are not acceptable.`;
}
