/** The one error of the configuration. */

/** A flag, a variable or a file that it names is wrong. The message is one sentence for the operator. */
export class ConfigError extends Error {
  override name = "ConfigError";
}
