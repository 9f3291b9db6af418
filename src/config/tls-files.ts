/** Certificates and keys, as files hold them (PEM): checked at start, not at the first connection. */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { ConfigError } from "./error.ts";
import type { FlagName } from "./flags.ts";

/** PEM texts that belong together. */
export interface TlsFiles {
  /** This member's certificate first, then those between it and the root. */
  readonly cert: string;
  readonly key: string;
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** @throws ConfigError one without the other, no certificate, no key, an encrypted key, or not a pair */
export function parseTls(cert: string | null, key: string | null): TlsFiles | null {
  if (cert === null && key === null) return null;
  if (cert === null) throw new ConfigError("--tls-key needs --tls-cert: give the certificate too.");
  if (key === null) throw new ConfigError("--tls-cert needs --tls-key: give its private key too.");
  const [certificate] = parseCertificates("tls-cert", cert);
  if (certificate?.checkPrivateKey(parseKey(key)) !== true) {
    throw new ConfigError(
      "--tls-key is not the key of the first certificate in --tls-cert: give the pair.",
    );
  }
  return { cert, key };
}

/** @throws ConfigError no certificate in it */
export function parsePeerCa(text: string | null): string | null {
  if (text !== null) parseCertificates("peer-ca", text);
  return text;
}

function parseCertificates(flag: FlagName, text: string): readonly X509Certificate[] {
  const blocks = text.match(CERTIFICATE) ?? [];
  try {
    if (blocks.length > 0) return blocks.map((block) => new X509Certificate(block));
  } catch {
    // Said below: a block that is none is as good as no block.
  }
  throw new ConfigError(
    `--${flag} holds no certificate that can be read: give a PEM file with BEGIN CERTIFICATE.`,
  );
}

function parseKey(text: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch {
    throw new ConfigError(
      "--tls-key holds no private key that can be read: give a PEM file without a passphrase.",
    );
  }
}
