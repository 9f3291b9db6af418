import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { ConfigError, parseConfig } from "../../src/config.ts";
import { makeCertificates, OPENSSL, type TestCertificates } from "../tools/certificates.ts";

describe.skipIf(OPENSSL === null)("certificates (skipped without openssl)", () => {
  let made: TestCertificates;

  beforeAll(() => {
    made = makeCertificates(["n1", "n2"]);
  });
  afterAll(() => rmSync(made.folder, { recursive: true, force: true }));

  function outcome(...argv: string[]): unknown {
    try {
      return parseConfig(argv, {}, { isTerminal: false });
    } catch (error) {
      if (error instanceof ConfigError) return error.message;
      throw error;
    }
  }

  test("a pair makes the member's own address https", () => {
    const config = outcome("--tls-cert", made.cert("n1"), "--tls-key", made.key("n1"));
    expect(config).toMatchObject({
      advertise: "https://127.0.0.1:3000",
      tls: { cert: readFileSync(made.cert("n1"), "utf8") },
    });
  });

  test("a CA is read", () => {
    expect(outcome("--peer-ca", made.ca)).toMatchObject({
      peerCa: readFileSync(made.ca, "utf8"),
    });
  });

  test("one without the other is refused, whichever it is", () => {
    expect(outcome("--tls-cert", made.cert("n1"))).toContain("--tls-cert needs --tls-key");
    expect(outcome("--tls-key", made.key("n1"))).toContain("--tls-key needs --tls-cert");
  });

  test("a key of another certificate is refused", () => {
    expect(outcome("--tls-cert", made.cert("n1"), "--tls-key", made.key("n2"))).toContain(
      "--tls-key is not the key",
    );
  });

  test("files that hold something else are refused, and what they hold is not shown", () => {
    const key = made.key("n1");
    for (const message of [
      outcome("--tls-cert", key, "--tls-key", key),
      outcome("--peer-ca", key),
    ]) {
      expect(message).toContain("holds no certificate");
      expect(message).not.toContain("BEGIN PRIVATE");
    }
    expect(outcome("--tls-cert", made.cert("n1"), "--tls-key", made.ca)).toContain(
      "holds no private key",
    );
  });

  test("a peers' port with a CA needs a certificate to show there", () => {
    const peers = ["--peers", "n1=https://127.0.0.1:4000", "--peer-port", "4000"];
    expect(outcome(...peers, "--peer-ca", made.ca)).toContain("give --tls-cert and --tls-key");
    expect(outcome(...peers)).toMatchObject({ peerPort: 4000 });
  });

  test("a plain advertised address of an https member is refused, https before a plain one is not", () => {
    const pair = ["--tls-cert", made.cert("n1"), "--tls-key", made.key("n1")];
    expect(outcome(...pair, "--advertise", "http://a:1")).toContain("begin it with https://");
    expect(outcome("--advertise", "https://a:1")).toMatchObject({ tls: null });
  });
});
