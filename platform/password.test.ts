import { argon2, argon2Sync, randomBytes } from "node:crypto";
import { describe, expect, it, vi } from "vitest";
import { hashPassword, verifyPassword } from "./password.ts";

// The real thing, watched.
vi.mock("node:crypto", async (original) => {
  const crypto = await original<typeof import("node:crypto")>();
  return { ...crypto, argon2: vi.fn(crypto.argon2) };
});

describe("password", () => {
  it("[US-2] is kept as salted argon2id in PHC form", async () => {
    const hash = await hashPassword("correct horse");
    expect(hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
    expect(await hashPassword("correct horse")).not.toBe(hash);
    expect(await verifyPassword("correct horse", hash)).toEqual({ ok: true, rehash: false });
    expect(await verifyPassword("correct horsf", hash)).toEqual({ ok: false, rehash: false });
  });

  it("compares however the letters were composed", async () => {
    const hash = await hashPassword("Gr\u00fc\u00dfe 1");
    expect((await verifyPassword("Gru\u0308\u00dfe 1", hash)).ok).toBe(true);
  });

  it("asks for a new hash when the old has other parameters", async () => {
    const salt = randomBytes(16);
    const hash = argon2Sync("argon2id", {
      message: "old",
      nonce: salt,
      memory: 1024,
      passes: 3,
      parallelism: 2,
      tagLength: 32,
    });
    const text = (bytes: Buffer) => bytes.toString("base64").replaceAll("=", "");
    const stored = `$argon2id$v=19$m=1024,t=3,p=2$${text(salt)}$${text(hash)}`;
    expect(await verifyPassword("old", stored)).toEqual({ ok: true, rehash: true });
    expect(await verifyPassword("new", stored)).toEqual({ ok: false, rehash: false });
  });

  it("does the same work for a user that does not exist, and says no", async () => {
    const hash = await hashPassword("x");
    const workFor = async (stored: string | undefined) => {
      vi.mocked(argon2).mockClear();
      expect((await verifyPassword("y", stored)).ok).toBe(false);
      return vi.mocked(argon2).mock.calls.map(([algorithm, { message, nonce, ...cost }]) => ({
        algorithm,
        message: String(message),
        salt: Buffer.from(nonce as Buffer).length,
        ...cost,
      }));
    };
    const known = await workFor(hash);
    expect(known).toEqual([
      {
        algorithm: "argon2id",
        message: "y",
        salt: 16,
        memory: 19_456,
        passes: 2,
        parallelism: 1,
        tagLength: 32,
      },
    ]);
    expect(await workFor(undefined)).toEqual(known);
    expect(await workFor("no hash at all")).toEqual(known);
  });

  it("takes turns: 60 at once stay within the memory of a few", async () => {
    const before = process.memoryUsage.rss();
    let highest = before;
    const timer = setInterval(() => {
      highest = Math.max(highest, process.memoryUsage.rss());
    }, 2);
    const hash = await hashPassword("x");
    const results = await Promise.all(Array.from({ length: 60 }, () => verifyPassword("x", hash)));
    clearInterval(timer);
    expect(results.every(({ ok }) => ok)).toBe(true);
    expect(highest - before).toBeLessThan(400 * 1024 * 1024);
  });

  it("refuses at once when hundreds wait already, and serves those that wait", async () => {
    const light =
      "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const all = await Promise.allSettled(Array.from({ length: 600 }, () => verifyPassword("x", light)));
    const refused = all.filter((one) => one.status === "rejected");
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThanOrEqual(100);
    expect(refused.every((one) => one.reason.code === "Unavailable")).toBe(true);
  });

  it("reports parameters argon2 refuses and goes on serving", async () => {
    const absurd =
      "$argon2id$v=19$m=1,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    await expect(verifyPassword("x", absurd)).rejects.toThrow();
    expect(await verifyPassword("x", await hashPassword("x"))).toEqual({ ok: true, rehash: false });
  });
});
