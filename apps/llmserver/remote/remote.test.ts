import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { checkedLookup, isAllowedAddress } from "#platform/net/address.ts";
import { within } from "#tests/support/within.ts";
import { Breakers } from "./breaker.ts";
import { Deadline } from "./deadline.ts";
import { readEvents } from "./events.ts";
import { connectionFailure, errorFields, retryAfterSeconds, statusFailure } from "./failures.ts";
import { createRedactor } from "./redact.ts";

describe("addresses", () => {
  const never = [
    "169.254.169.254",
    "169.254.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "[fe80::1]",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::a9fe:a9fe",
    "not an address",
    "",
  ];
  it.each(never)("%s is never a provider", (address) => {
    expect(isAllowedAddress(address, true)).toBe(false);
    expect(isAllowedAddress(address, false)).toBe(false);
  });
  it.each([
    "127.0.0.1",
    "10.1.2.3",
    "172.31.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "0.0.0.0",
    "::1",
    "::",
    "fd12::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
  ])("%s only where private ones may be", (address) => {
    expect(isAllowedAddress(address, true)).toBe(true);
    expect(isAllowedAddress(address, false)).toBe(false);
  });
  it.each(["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])("%s always", (address) => {
    expect(isAllowedAddress(address, false)).toBe(true);
  });

  it("looks names up and refuses by the address they have", async () => {
    const look = (name: string, allowPrivate: boolean, all: boolean) =>
      new Promise<unknown>((resolve) =>
        checkedLookup(allowPrivate)(name, { all }, (error, address) => resolve(error ?? address)),
      );
    expect(await look("localhost", false, true)).toMatchObject({ code: "CDS_REFUSED_ADDRESS" });
    expect(await look("localhost", true, false)).toMatch(/^(127\.0\.0\.1|::1)$/);
    expect(await look("localhost", true, true)).toBeInstanceOf(Array);
    expect(await look("no-such-host.invalid", true, true)).toMatchObject({
      code: expect.stringMatching(/ENOTFOUND|EAI_AGAIN/),
    });
  });
});

describe("circuit breaker", () => {
  it("opens after so many failures in a row, lets one try after a while, and closes on success", () => {
    let now = 0;
    const breakers = new Breakers({ threshold: 3, coolMs: 10_000, now: () => now });
    const fail = () => {
      expect(breakers.enter("a")).toBeUndefined();
      breakers.failed("a");
    };
    fail();
    fail();
    breakers.succeeded("a");
    fail();
    fail();
    fail();
    expect(breakers.enter("a")).toBe(10);
    expect(breakers.enter("b")).toBeUndefined();
    now = 10_001;
    expect(breakers.enter("a")).toBeUndefined();
    expect(breakers.enter("a")).toBe(1);
    breakers.failed("a");
    expect(breakers.enter("a")).toBe(10);
    now = 20_002;
    expect(breakers.enter("a")).toBeUndefined();
    breakers.undecided("a");
    expect(breakers.enter("a")).toBeUndefined();
    breakers.succeeded("a");
    expect(breakers.enter("a")).toBeUndefined();
  });
});

describe("deadline", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("expires once when armed, never when disarmed", () => {
    let expired = 0;
    using deadline = new Deadline(() => {
      expired += 1;
    });
    deadline.arm(20);
    deadline.disarm();
    vi.advanceTimersByTime(40);
    expect(expired).toBe(0);
    deadline.arm(20);
    vi.advanceTimersByTime(10);
    deadline.arm(20);
    vi.advanceTimersByTime(15);
    expect(expired).toBe(0);
    deadline.arm(5);
    vi.advanceTimersByTime(4);
    expect(expired).toBe(0);
    vi.advanceTimersByTime(30);
    expect(expired).toBe(1);
  });
});

describe("redaction", () => {
  const key = "sk-proj-Ab3dEf6hIj9lMn2pQr5tUv8x";
  const redactor = createRedactor(key);

  it.each([
    ["whole", `key ${key}.`],
    ["at the beginning", key],
    ["URL-encoded", `?k=${encodeURIComponent(key)}`],
    ["hex", Buffer.from(key).toString("hex")],
    ["HEX", Buffer.from(key).toString("hex").toUpperCase()],
    ["base64", Buffer.from(key).toString("base64")],
    ["base64 of a header", Buffer.from(`Bearer ${key}`).toString("base64")],
    ["base64 of user:key", Buffer.from(`me:${key}`).toString("base64")],
    ["base64url of user:key", Buffer.from(`user:${key}!`).toString("base64url")],
    ["the first half", `starts ${key.slice(0, 16)} here`],
    ["the second half", `ends ${key.slice(16)} here`],
    ["masked", `Incorrect API key provided: ${key.slice(0, 7)}*******${key.slice(-4)}.`],
    ["shortened", `key ${key.slice(0, 7)}... is wrong`],
    ["shortened with a point", `key …${key.slice(-4)} is wrong`],
  ])("strikes the key out: %s", (_name, text) => {
    const clean = redactor.text(text);
    expect(clean).toContain("[redacted]");
    expect(clean).not.toContain(key.slice(-4));
  });

  it("leaves other text alone", () => {
    const text = "The model sk-other was not found... see **docs** for more.";
    expect(redactor.text(text)).toBe(text);
    expect(redactor.quick(text)).toBe(text);
    expect(createRedactor("abc").text("abc or not")).toBe("abc or not");
    expect(createRedactor("a-b-c-d").text("is a-b-c-d")).toBe("is [redacted]");
    expect(createRedactor("ollama").quick("ollama runs models")).toBe("ollama runs models");
  });

  it("keeps no eight characters of a key, wherever it stands", () => {
    const hex = fc.stringMatching(/^[0-9a-f]{16,40}$/);
    fc.assert(
      fc.property(hex, fc.string(), fc.string(), (secret, before, after) => {
        const clean = createRedactor(secret).text(`${before}${secret}${after}`);
        expect(clean).not.toContain(secret.slice(0, 8));
        expect(clean).not.toContain(secret.slice(-8));
      }),
    );
  });

  it("takes its time in proportion, also for hostile text", { timeout: 600_000 }, () => {
    // Quadratic, each of these would take hours.
    for (const piece of ["a", "*", "sk-proj-", `${key.slice(0, 7)}*`]) {
      const text = piece.repeat(2_000_000 / piece.length);
      expect(within(120_000, () => redactor.text(text)).length).toBeLessThanOrEqual(text.length * 2);
    }
  });
});

describe("failures", () => {
  const redactor = createRedactor("sk-a-long-enough-key");

  it("reads Retry-After in both forms", () => {
    expect(retryAfterSeconds("3")).toBe(3);
    expect(retryAfterSeconds("-3")).toBe(0);
    expect(retryAfterSeconds(undefined)).toBeUndefined();
    expect(retryAfterSeconds("soon")).toBeUndefined();
    expect(retryAfterSeconds(new Date(Date.now() + 60_000).toUTCString())).toBeGreaterThan(50);
  });

  it("finds the error wherever providers put it", () => {
    expect(errorFields('{"error":{"message":"m","code":42,"param":"p"}}', redactor)).toMatchObject({
      message: "m",
      code: "42",
      param: "p",
    });
    expect(errorFields('{"message":"m","type":"t"}', redactor)).toMatchObject({ message: "m", type: "t" });
    expect(errorFields('{"error":"m"}', redactor).message).toBe("m");
    expect(errorFields('[{"error":{"message":"m"}}]', redactor).message).toBe("m");
    expect(errorFields("<html>", redactor).message).toBeUndefined();
    expect(errorFields("null", redactor).message).toBeUndefined();
  });

  it("does not repeat what money has ended, nor a certificate that is wrong", () => {
    const quota = statusFailure(
      429,
      undefined,
      '{"error":{"message":"m","code":"insufficient_quota"}}',
      redactor,
    );
    expect(quota.retry).toBe(false);
    expect(statusFailure(429, "1", "", redactor)).toMatchObject({ retry: true, afterSeconds: 1 });
    expect(statusFailure(403, undefined, "", redactor).error.message).toBe(
      "The provider refused its key: status 403",
    );
    expect(statusFailure(204, undefined, "", redactor).error.status).toBe(502);
    expect(
      connectionFailure(Object.assign(new Error("x"), { code: "DEPTH_ZERO_SELF_SIGNED_CERT" })).retry,
    ).toBe(false);
    expect(connectionFailure("odd").error.message).toContain("unknown");
  });
});

describe("events", () => {
  it("are the same however the bytes are cut", async () => {
    const text =
      'data: {"a":"hé😀"}\n\n: note\n\ndata: 2\r\n\r\nevent: x\ndata: 3\ndata: 4\n\ndata: [DONE]\n\n';
    const bytes = Buffer.from(text);
    const watch = { waiting: () => undefined, arrived: () => undefined };
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: bytes.length - 1 })), async (cuts) => {
        const ends = [...new Set(cuts), bytes.length].sort((a, b) => a - b);
        const chunks = ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
        const found: string[] = [];
        const body = (async function* () {
          yield* chunks;
        })();
        for await (const batch of readEvents(body, watch)) found.push(...batch);
        expect(found).toEqual(['{"a":"hé😀"}', "2", "3\n4", "[DONE]"]);
      }),
      { numRuns: 100 },
    );
  });
});
