import { createHmac, generateKeyPairSync } from "node:crypto";
import { tmpdir } from "node:os";
import { SignJWT, UnsecuredJWT } from "jose";
import { describe, expect, it } from "vitest";
import { openSecrets } from "../secrets.ts";
import {
  AccessTokens,
  hashToken,
  isApiKey,
  newApiKey,
  newRefreshToken,
  TaskTokens,
  tokenKind,
} from "./index.ts";

const secrets = await openSecrets({ masterKey: "a test's master key of 32 characters", dataDir: tmpdir() });
const access = await AccessTokens.open(secrets, 3600);
const tasks = await TaskTokens.open(secrets);
const user = { id: "usr_1", username: "ada", role: "developer", token_version: 7 } as const;
const goodClaims = { sub: "usr_1", username: "ada", role: "developer", ver: 7 };
const now = () => Math.floor(Date.now() / 1000);

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** A token signed with the true key, but made by hand. */
function forge(header: object, claims: object, key = secrets.key("access-tokens"), hash = "sha256"): string {
  const text = `${encode(header)}.${encode(claims)}`;
  return `${text}.${createHmac(hash, key).update(text).digest("base64url")}`;
}

const header = { alg: "HS256", typ: "at+jwt" };
const standard = () => ({
  ...goodClaims,
  iss: "cyberdevstudio",
  aud: "cyberdevstudio",
  iat: now(),
  exp: now() + 60,
});

describe("access tokens", () => {
  it("[US-2] carry sub, username, role, exp and the token version", async () => {
    const { token, expires_in } = await access.issue(user);
    const claims = await access.verify(token);
    expect(claims).toEqual({ ...goodClaims, exp: expect.any(Number) });
    expect(expires_in).toBe(3600);
    expect(Math.abs(claims.exp - now() - 3600)).toBeLessThanOrEqual(1);
  });

  it("[US-2] refuse every forgery", async () => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const [, payload, signature] = (await access.issue(user)).token.split(".");
    const forged: Record<string, string> = {
      "alg none": new UnsecuredJWT(standard()).encode(),
      "alg none with typ": `${encode({ alg: "none", typ: "at+jwt" })}.${encode(standard())}.`,
      RS256: await new SignJWT(standard())
        .setProtectedHeader({ alg: "RS256", typ: "at+jwt" })
        .sign(privateKey),
      HS512: forge({ alg: "HS512", typ: "at+jwt" }, standard(), undefined, "sha512"),
      "other key": forge(header, standard(), secrets.key("something else")),
      "typ of a task": forge({ alg: "HS256", typ: "task+jwt" }, standard()),
      "no typ": forge({ alg: "HS256" }, standard()),
      issuer: forge(header, { ...standard(), iss: "else" }),
      audience: forge(header, { ...standard(), aud: "else" }),
      "no exp": forge(header, { ...standard(), exp: undefined }),
      "unknown role": forge(header, { ...standard(), role: "root" }),
      "no sub": forge(header, { ...standard(), sub: undefined }),
      "no name": forge(header, { ...standard(), username: undefined }),
      "ver is text": forge(header, { ...standard(), ver: "7" }),
      "exp is text": forge(header, { ...standard(), exp: "soon" }),
      "crit header": forge({ ...header, crit: ["x"], x: 1 }, standard()),
      "changed claims": `${encode(header)}.${encode({ ...standard(), role: "admin" })}.${signature}`,
      "changed header": `${encode({ ...header, x: 1 })}.${payload}.${signature}`,
      "no signature": `${encode(header)}.${payload}.`,
      empty: "",
      garbage: "a.b.c",
    };
    for (const [name, token] of Object.entries(forged)) {
      await expect(access.verify(token), name).rejects.toMatchObject({ code: "Unauthenticated" });
    }
    expect((await access.verify(forge(header, standard()))).sub).toBe("usr_1");
  });

  it("expire, and say so", async () => {
    const expired = forge(header, { ...standard(), exp: now() - 10 });
    await expect(access.verify(expired)).rejects.toThrow("The token has expired.");
  });
});

describe("task tokens", () => {
  const claims = { task_id: "tsk_1", user_id: "usr_1", attempt: 2 };

  it("name the task, the user and the attempt", async () => {
    const token = await tasks.issue({ ...claims, ttlSeconds: 60 });
    expect(await tasks.verify(token)).toEqual({ ...claims, exp: expect.any(Number) });
  });

  it("[MU-4] are worth nothing as access tokens, nor the other way round, nor expired", async () => {
    const task = await tasks.issue({ ...claims, ttlSeconds: 60 });
    await expect(access.verify(task)).rejects.toMatchObject({ code: "Unauthenticated" });
    await expect(tasks.verify((await access.issue(user)).token)).rejects.toMatchObject({
      code: "Unauthenticated",
    });
    const old = await tasks.issue({ ...claims, ttlSeconds: -10 });
    await expect(tasks.verify(old)).rejects.toThrow("The token has expired.");
  });

  it("refuse claims of the wrong type", async () => {
    const full = { ...claims, iss: "cyberdevstudio", aud: "cyberdevstudio/llm", iat: now(), exp: now() + 60 };
    const taskHeader = { alg: "HS256", typ: "task+jwt" };
    const sign = (change: object) => forge(taskHeader, { ...full, ...change }, secrets.key("task-tokens"));
    expect(await tasks.verify(sign({}))).toMatchObject(claims);
    for (const wrong of [{ task_id: 1 }, { user_id: undefined }, { attempt: "2" }]) {
      await expect(tasks.verify(sign(wrong))).rejects.toMatchObject({ code: "Unauthenticated" });
    }
  });
});

describe("opaque tokens", () => {
  it("are told apart by their shape", async () => {
    expect(tokenKind(newApiKey())).toBe("api_key");
    expect(tokenKind((await access.issue(user)).token)).toBe("access");
    expect(tokenKind(await tasks.issue({ task_id: "t", user_id: "u", attempt: 1, ttlSeconds: 9 }))).toBe(
      "task",
    );
    for (const other of [
      "",
      "a.b.c",
      `${encode(null)}.x.y`,
      `${encode({ typ: "JWT" })}.x.y`,
      newRefreshToken(),
    ]) {
      expect(tokenKind(other)).toBe("unknown");
    }
    expect(tokenKind(`${encode({ typ: "at+jwt" })}.x.y.z`)).toBe("unknown");
    expect(isApiKey("sk-1")).toBe(false);
  });

  it("are long, random, and stored only as a hash", () => {
    const key = newApiKey();
    expect(key).toMatch(/^cds_[\w-]{43}$/);
    expect(newApiKey()).not.toBe(key);
    expect(hashToken(key)).toHaveLength(32);
    expect(hashToken(key)).toEqual(hashToken(key));
  });
});
