/** A private CA and certificates for members on this machine, made by openssl in a temporary folder. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Its path; null: tests with certificates are skipped. */
export const OPENSSL = Bun.which("openssl");

export interface TestCertificates {
  /** To be removed by the test. */
  readonly folder: string;
  readonly ca: string;
  cert(name: string): string;
  key(name: string): string;
}

/** Each is valid for a day, for localhost and 127.0.0.1. */
export function makeCertificates(names: readonly string[]): TestCertificates {
  const folder = mkdtempSync(join(tmpdir(), "flotilla-tls-"));
  const file = (name: string): string => join(folder, name);
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(
    ["req", "-x509", ...newKey, "-days", "1", "-subj", "/CN=flotilla test CA"],
    ["-keyout", file("ca.key"), "-out", file("ca.pem")],
  );
  writeFileSync(file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  for (const name of names) {
    openssl(
      ["req", ...newKey, "-subj", `/CN=${name}`],
      ["-keyout", file(`${name}.key`), "-out", file(`${name}.csr`)],
    );
    openssl(
      ["x509", "-req", "-in", file(`${name}.csr`), "-CA", file("ca.pem"), "-CAkey", file("ca.key")],
      ["-CAcreateserial", "-days", "1", "-extfile", file("names"), "-out", file(`${name}.pem`)],
    );
  }
  return {
    folder,
    ca: file("ca.pem"),
    cert: (name) => file(`${name}.pem`),
    key: (name) => file(`${name}.key`),
  };
}

function openssl(...parts: readonly (readonly string[])[]): void {
  const { success, stderr } = Bun.spawnSync([OPENSSL ?? "openssl", ...parts.flat()]);
  if (!success) throw new Error(`openssl: ${stderr.toString()}`);
}
