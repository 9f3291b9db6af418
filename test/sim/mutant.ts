/** A known bug, as an edit of the sources' text. */
export interface Edit {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export interface Mutant {
  readonly name: string;
  readonly what: string;
  readonly edits: readonly Edit[];
}

export const one = (
  name: string,
  what: string,
  file: string,
  find: string,
  replace: string,
): Mutant => ({
  name,
  what,
  edits: [{ file, find, replace }],
});
