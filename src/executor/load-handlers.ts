/** Finds the handlers of a pool: a user's module, the built-in ones, or both. */
import { createBuiltins } from "./builtin/builtins.ts";
import type { Handler } from "./handler.ts";
import type { ThreadSetup } from "./protocol.ts";

const NAME_MAX_BYTES = 255;

/** Handlers by name. @throws Error with one sentence that says what is wrong with the module. */
export async function loadHandlers(setup: ThreadSetup): Promise<ReadonlyMap<string, Handler>> {
  const builtins = createBuiltins(setup.ioRoots, setup.allowNet);
  const { handlers: source } = setup;
  if (source.kind === "builtin") return pick(builtins, source.names ?? [...builtins.keys()]);

  // An echo for every unknown name would swallow what the module does not handle.
  if (source.builtin.includes("*"))
    throw new TypeError('the built-in "*" exists only without a handlers module');
  const found = new Map(pick(builtins, source.builtin));
  const exported = await importHandlers(source.path);
  for (const [name, handler] of Object.entries(exported)) {
    if (typeof handler !== "function")
      throw new TypeError(`${source.path}: handler "${name}" is not a function`);
    if (name === "" || Buffer.byteLength(name) > NAME_MAX_BYTES)
      throw new TypeError(`${source.path}: a handler's name has 1 to ${NAME_MAX_BYTES} bytes`);
    // Bound: a module may be an object whose methods use `this`.
    found.set(name, (handler as Handler).bind(exported));
  }
  if (found.size === 0) throw new TypeError(`${source.path} exports no handlers`);
  return found;
}

async function importHandlers(path: string): Promise<object> {
  const module = (await import(path)) as { readonly default?: unknown };
  const exported = module.default;
  if (typeof exported === "object" && exported !== null) return exported;
  throw new TypeError(
    `${path} has no default export with handlers: export default { name(payload, ctx) {} }`,
  );
}

function pick(
  builtins: ReadonlyMap<string, Handler>,
  names: readonly string[],
): ReadonlyMap<string, Handler> {
  const picked = new Map<string, Handler>();
  for (const name of names) {
    const handler = builtins.get(name);
    if (handler === undefined)
      throw new TypeError(
        `no built-in handler is named ${name}; there are ${[...builtins.keys()].join(", ")}`,
      );
    picked.set(name, handler);
  }
  return picked;
}
