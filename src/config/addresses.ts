/** Hosts, origins and ranges of addresses, as flags give them. */
import { isIP } from "node:net";
import { ConfigError } from "./error.ts";
import type { FlagName } from "./flags.ts";

const HOSTNAME_PATTERN =
  /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;

export type Scheme = "http" | "https";

/** `SCHEME://HOST:PORT`, with brackets around an IPv6 address; no port where it is the scheme's own. */
export function originOf(scheme: Scheme, host: string, port: number): string {
  return new URL(`${scheme}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`).origin;
}

/** Only this machine can reach it: 127.0.0.0/8, ::1, localhost. */
export function isLoopbackHost(host: string): boolean {
  if (host === "localhost" || host === "::1") return true;
  return isIP(host) === 4 && host.startsWith("127.");
}

/** Without brackets, lower case. @throws ConfigError */
export function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1").toLowerCase();
  if (isIP(host) !== 0 || (HOSTNAME_PATTERN.test(host) && !looksLikeAddress(host))) return host;
  throw new ConfigError(
    `--host ${JSON.stringify(text)} is neither a host name nor an address: ` +
      "give one without scheme and port, such as 127.0.0.1.",
  );
}

/** Null only for port 0 without `--advertise`. @throws ConfigError */
export function parseAdvertise(
  text: string | null,
  scheme: Scheme,
  host: string,
  port: number,
): string | null {
  if (text !== null) {
    const origin = parseOrigin("advertise", text);
    // The other way round is a proxy that ends TLS in front of a plain member.
    if (scheme === "http" || origin.startsWith("https:")) return origin;
    throw new ConfigError(
      `--advertise ${JSON.stringify(text)} is plain HTTP, and this member speaks HTTPS (--tls-cert): ` +
        "begin it with https://.",
    );
  }
  if (isWildcardHost(host)) {
    throw new ConfigError(
      `--advertise is needed with --host ${host}: give the URL at which others reach this member.`,
    );
  }
  return port === 0 ? null : originOf(scheme, host, port);
}

/** Scheme, host and port, no trailing slash. @throws ConfigError */
export function parseOrigin(flag: FlagName, text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} is not a URL: write it like http://10.0.0.1:3000.`,
    );
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new ConfigError(`--${flag} ${JSON.stringify(text)} must begin with http:// or https://.`);
  }
  if (
    url.pathname !== "/" ||
    text.includes("?") ||
    text.includes("#") ||
    url.username !== "" ||
    url.password !== ""
  ) {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} must be scheme, host and port only: remove the rest.`,
    );
  }
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  if (isWildcardHost(host)) {
    throw new ConfigError(
      `--${flag} ${JSON.stringify(text)} is a wildcard, which nobody can dial: ` +
        "give the member's own address.",
    );
  }
  return url.origin;
}

/** A host name, an address or a CIDR range, lower case. @throws ConfigError */
export function parseAllowNet(text: string): string {
  const lower = text.toLowerCase();
  const slash = lower.indexOf("/");
  if (slash >= 0) {
    const family = isIP(lower.slice(0, slash));
    const prefix = lower.slice(slash + 1);
    const bits = family === 4 ? 32 : 128;
    if (family !== 0 && /^\d{1,3}$/.test(prefix) && Number(prefix) <= bits) return lower;
  } else {
    const host = lower.replace(/^\[(.*)\]$/, "$1");
    if (isIP(host) !== 0) return host;
    if (HOSTNAME_PATTERN.test(host) && !looksLikeAddress(host)) return host;
  }
  throw new ConfigError(
    `--allow-net ${JSON.stringify(text)} is neither a host nor a range: ` +
      "write it like internal.example, 10.0.0.5 or 10.0.0.0/8.",
  );
}

/** Digits and dots only: meant as an IPv4 address, and if `isIP` refused it, a wrong one. */
function looksLikeAddress(host: string): boolean {
  return /^[0-9.]+$/.test(host);
}

function isWildcardHost(host: string): boolean {
  return host === "0.0.0.0" || (isIP(host) === 6 && /^[0:]+$/.test(host));
}
