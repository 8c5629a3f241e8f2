import { describe, expect, it } from "vitest";
import { createUser, findUserByName } from "#database/accounts/users.ts";
import { ConfigError, readConfig, verifyPassword } from "#platform";
import { testDatabase } from "#tests/support/database.ts";
import { ensureAdmin } from "./ensure-admin.ts";

const given = (username: string, password?: string) =>
  readConfig({
    CDS_ADMIN_USERNAME: username,
    ...(password === undefined ? {} : { CDS_ADMIN_PASSWORD: password }),
  });

describe("the first administrator", () => {
  it("gets a readable password of 100 bits, told once", async () => {
    await using test = await testDatabase();
    const made = await ensureAdmin(test.database, readConfig({}));
    expect(made).toEqual({
      username: "admin",
      password: expect.stringMatching(/^([0-9a-z]{5}-){3}[0-9a-z]{5}$/),
    });
    const row = await findUserByName(test.database.db, "admin");
    expect(row?.role).toBe("admin");
    expect((await verifyPassword(made.password ?? "", row?.password_hash)).ok).toBe(true);
    expect(await ensureAdmin(test.database, readConfig({}))).toEqual({ username: "admin" });
    expect((await findUserByName(test.database.db, "admin"))?.password_hash).toBe(row?.password_hash);
  });

  it("takes the name and password given; a later start changes no password but may add another", async () => {
    await using test = await testDatabase();
    const { database } = test;
    expect(await ensureAdmin(database, given("boss@example.org", "the first password"))).toEqual({
      username: "boss@example.org",
    });
    expect(await ensureAdmin(database, given("BOSS@example.org", "another password"))).toEqual({
      username: "boss@example.org",
    });
    const boss = await findUserByName(database.db, "boss@example.org");
    expect((await verifyPassword("the first password", boss?.password_hash)).ok).toBe(true);
    expect(await ensureAdmin(database, given("nobody"))).toEqual({ username: "boss@example.org" });
    expect(await findUserByName(database.db, "nobody")).toBeUndefined();
    expect(await ensureAdmin(database, given("second", "a second password"))).toEqual({ username: "second" });
    expect((await findUserByName(database.db, "second"))?.role).toBe("admin");
  });

  it("never makes an administrator of somebody who only has the name", async () => {
    await using test = await testDatabase();
    const { database } = test;
    const squatter = {
      username: "admin",
      password_hash: "x",
      role: "developer",
      initial_balance: 0,
    } as const;
    await createUser(database.db, squatter);
    await expect(ensureAdmin(database, readConfig({}))).rejects.toThrow(
      /CDS_ADMIN_USERNAME.*no administrator/,
    );
    await ensureAdmin(database, given("boss", "a boss's password"));
    expect(await ensureAdmin(database, given("admin", "a password given"))).toEqual({ username: "boss" });
    expect((await findUserByName(database.db, "admin"))?.role).toBe("developer");
  });

  it("says which value cannot be used", async () => {
    await using test = await testDatabase();
    const attempt = (name: string, password: string) => ensureAdmin(test.database, given(name, password));
    await expect(attempt("admin", "short")).rejects.toThrow(/^CDS_ADMIN_PASSWORD: /);
    await expect(attempt("two words", "long enough")).rejects.toThrow(/^CDS_ADMIN_USERNAME: /);
    await expect(attempt("two words", "long enough")).rejects.toThrow(ConfigError);
  });

  it("instances that start at once agree on one", async () => {
    await using test = await testDatabase();
    const made = await Promise.all([1, 2, 3, 4].map(() => ensureAdmin(test.database, readConfig({}))));
    expect(made.filter(({ password }) => password !== undefined)).toHaveLength(1);
    expect(made.every(({ username }) => username === "admin")).toBe(true);
  });
});
