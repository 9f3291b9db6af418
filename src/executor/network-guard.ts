/**
 * Which hosts the built-in `io` and `http` may reach. A task's payload may come from anyone who may
 * submit; without this it could make a member read cloud metadata or drive services of its own network.
 * The guard answers with the addresses it checked, and the request must go to one of them: a second
 * lookup could answer differently (DNS rebinding).
 */
import { NonRetryableError } from "./errors.ts";
import { contains, isPublic, parseCidr, parseIp, type CidrBlock } from "./network-address.ts";

/** Every address of a host name. Rejects when there is none. */
export type Resolver = (host: string) => Promise<readonly string[]>;

/** One `--allow-net`. */
export type AllowRule =
  | { readonly kind: "host"; readonly host: string; readonly port: number | null }
  | { readonly kind: "block"; readonly block: CidrBlock; readonly port: number | null };

export interface CheckedAddress {
  readonly address: string;
  readonly family: 4 | 6;
}

/** "host", "host:port", an address, "[v6]:port" or a CIDR. @throws RangeError with one sentence. */
export function parseAllowRule(text: string): AllowRule {
  const block = parseCidr(text);
  if (block !== null) return { kind: "block", block, port: null };
  const match = /^(?:\[([^\]]+)\]|([^:[\]/\s]+))(?::(\d{1,5}))?$/.exec(text);
  const name = match?.[1] ?? match?.[2];
  const port = match?.[3] === undefined ? null : Number(match[3]);
  if (name !== undefined && (port === null || (port > 0 && port < 65_536))) {
    const address = parseCidr(name);
    if (address !== null) return { kind: "block", block: address, port };
    if (match?.[2] !== undefined && /^[a-z0-9._-]+$/i.test(name))
      return { kind: "host", host: canonicalHost(name), port };
  }
  throw new RangeError(`"${text}" is neither a host, host:port, an address nor a CIDR`);
}

const systemResolver: Resolver = async (host) => {
  // Loaded when first needed, for the sake of a Worker's start.
  const { lookup } = await import("node:dns/promises");
  return (await lookup(host, { all: true, order: "verbatim" })).map(({ address }) => address);
};

export class NetworkGuard {
  readonly #rules: readonly AllowRule[];
  readonly #resolve: Resolver;

  /** @throws RangeError when a rule is malformed. */
  constructor(allowNet: readonly string[], resolve: Resolver = systemResolver) {
    this.#rules = allowNet.map(parseAllowRule);
    this.#resolve = resolve;
  }

  /**
   * The addresses that a request for `url` may connect to; at least one.
   * @throws NonRetryableError when the URL or every address is refused; the resolver's error when the
   * name does not resolve (which may pass).
   */
  async check(url: URL): Promise<readonly CheckedAddress[]> {
    if (url.protocol !== "http:" && url.protocol !== "https:")
      throw new NonRetryableError(`${url.protocol} URLs are not fetched, only http: and https:`);
    if (url.username !== "" || url.password !== "")
      throw new NonRetryableError("a URL must not hold a user name or password; use headers");
    // URL has turned every spelling of an address (0x7f.1, 2130706433) into the plain one.
    const host = canonicalHost(url.hostname);
    const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
    const literal = parseIp(host);
    const addresses = literal === null ? await this.#resolve(host) : [host];
    if (addresses.length === 0) throw new Error(`${host} has no address`);

    const hostAllowed = this.#rules.some(
      (rule) => rule.kind === "host" && rule.host === host && (rule.port ?? port) === port,
    );
    const checked: CheckedAddress[] = [];
    for (const address of addresses) {
      const ip = parseIp(address);
      if (ip === null) continue;
      const allowed =
        hostAllowed ||
        isPublic(ip) ||
        this.#rules.some(
          (rule) =>
            rule.kind === "block" && (rule.port ?? port) === port && contains(rule.block, ip),
        );
      if (allowed) checked.push({ address, family: ip.family });
    }
    if (checked.length > 0) return checked;
    const shown = literal === null ? `${host} resolves to ${addresses.join(", ")}, which` : host;
    throw new NonRetryableError(
      `${shown} is not a public address; --allow-net ${host} on this member would let it be reached`,
    );
  }
}

/** Lower case, without the brackets of an IPv6 literal and the root's dot. */
function canonicalHost(host: string): string {
  return host
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "")
    .toLowerCase();
}
