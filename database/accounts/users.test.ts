import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AppError } from "#schemas";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import type { Db } from "../schema.ts";
import { setBalance } from "./balance.ts";
import {
  bumpTokenVersion,
  countAdmins,
  createUser,
  deleteUser,
  findUser,
  findUserByApiKeyHash,
  findUserByName,
  listUsers,
  type NewUser,
  setApiKeyHash,
  setRole,
} from "./users.ts";

const code = (error: unknown) => (error instanceof AppError ? error.code : String(error));
const person = (username: string, more: Partial<NewUser> = {}): NewUser => ({
  username,
  password_hash: "$argon2id$x",
  role: "developer",
  initial_balance: 500,
  ...more,
});

describe("users", () => {
  let test: TestDatabase;
  let db: Db;
  beforeAll(async () => {
    test = await testDatabase();
    db = test.database.db;
  });
  afterAll(() => test[Symbol.asyncDispose]());

  const ledgerOf = (user_id: string) =>
    db
      .selectFrom("ledger_entries")
      .select(["kind", "balance_delta", "held_delta", "note"])
      .where("user_id", "=", user_id)
      .orderBy("id")
      .execute();

  it("makes a user with the first grant in the ledger", async () => {
    const user = await createUser(db, person("ada"));
    expect(user).toMatchObject({ username: "ada", email: null, token_balance: 500, token_version: 0 });
    expect(user.id).toMatch(/^usr_/);
    expect(await ledgerOf(user.id)).toEqual([
      { kind: "grant", balance_delta: 500, held_delta: 0, note: "initial balance" },
    ]);
    expect(await findUser(db, user.id)).toEqual(user);
    expect(await findUser(db, "usr_none")).toBeUndefined();
  });

  it("writes no grant for an empty account and takes a given id", async () => {
    const user = await createUser(db, person("poor", { id: "usr_given", initial_balance: 0 }));
    expect(user.id).toBe("usr_given");
    expect(await ledgerOf(user.id)).toEqual([]);
    expect(await createUser(db, person("other", { id: "usr_given" })).catch(isRaw)).toBe(true);
  });

  const isRaw = (error: unknown) => !(error instanceof AppError);

  it("finds names in any case and writing, and keeps an e-mail address as both", async () => {
    const user = await createUser(db, person("Zoë.Ünal@Beispiel.de"));
    expect(user.email).toBe("Zoë.Ünal@Beispiel.de");
    for (const name of [
      "zoë.ünal@beispiel.de",
      "ZOË.ÜNAL@BEISPIEL.DE",
      " Zoe\u0308.U\u0308nal@beispiel.de ",
    ]) {
      expect((await findUserByName(db, name))?.id).toBe(user.id);
      expect(await createUser(db, person(name)).catch(code)).toBe("Conflict");
    }
    expect(await findUserByName(db, "nobody")).toBeUndefined();
  });

  it("lets exactly one of ten simultaneous registrations of a name succeed", async () => {
    const tries = await Promise.allSettled(
      Array.from({ length: 10 }, (_, n) => createUser(db, person(n % 2 === 0 ? "race" : "RACE"))),
    );
    expect(tries.filter((result) => result.status === "fulfilled")).toHaveLength(1);
    const errors = tries.flatMap((result) => (result.status === "rejected" ? [code(result.reason)] : []));
    expect(new Set(errors)).toEqual(new Set(["Conflict"]));
    const { rows } = await sql<{ n: number }>`SELECT count(*) AS n FROM ledger_entries e
      JOIN users u ON u.id = e.user_id WHERE lower(u.username) = 'race'`.execute(db);
    expect(rows[0]?.n).toBe(1);
  });

  it("[DB-6] lists users page by page, nobody twice, nobody missed", async () => {
    const { users: all } = await listUsers(db, { limit: 1000 });
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await listUsers(db, { cursor, limit: 2 });
      seen.push(...page.users.map(({ id }) => id));
      cursor = page.next_cursor;
    } while (cursor !== undefined);
    expect(seen).toEqual(all.map(({ id }) => id));
    expect(seen.length).toBeGreaterThan(3);
  });

  it("stores one API key per user as a hash, and forgets it", async () => {
    const user = await createUser(db, person("keyed"));
    const hash = Buffer.alloc(32, 7);
    await setApiKeyHash(db, user.id, hash);
    expect((await findUserByApiKeyHash(db, hash))?.id).toBe(user.id);
    await setApiKeyHash(db, user.id, null);
    expect(await findUserByApiKeyHash(db, hash)).toBeUndefined();
    expect(await setApiKeyHash(db, "usr_none", hash).catch(code)).toBe("NotFound");
  });

  it("raises the token version", async () => {
    const user = await createUser(db, person("versioned"));
    expect(await bumpTokenVersion(db, user.id)).toBe(1);
    expect(await bumpTokenVersion(db, user.id)).toBe(2);
    expect(await bumpTokenVersion(db, "usr_none").catch(code)).toBe("NotFound");
  });

  it("never loses the last administrator, also when two remove each other", async () => {
    expect(await countAdmins(db)).toBe(0);
    const first = await createUser(db, person("admin1", { role: "admin" }));
    expect(await setRole(db, first.id, "viewer").catch(code)).toBe("Conflict");
    expect(await deleteUser(db, first.id).catch(code)).toBe("Conflict");
    expect((await setRole(db, first.id, "admin")).role).toBe("admin");
    for (let round = 0; round < 10; round += 1) {
      const second = await createUser(db, person(`admin2-${round}`, { role: "admin" }));
      const third = await findUserByName(db, "admin1");
      if (third === undefined) throw new Error("the first administrator is gone");
      const tries = await Promise.allSettled([
        round % 2 === 0 ? setRole(db, second.id, "viewer") : deleteUser(db, second.id),
        setRole(db, third.id, "viewer"),
      ]);
      expect(tries.filter((result) => result.status === "fulfilled")).toHaveLength(1);
      expect(await countAdmins(db)).toBe(1);
      await setRole(db, third.id, "admin");
      if (await findUser(db, second.id)) await deleteUser(db, second.id);
    }
  });

  it("tells an unknown user from others", async () => {
    expect(await setRole(db, "usr_none", "viewer").catch(code)).toBe("NotFound");
    expect(await setRole(db, "usr_none", "admin").catch(code)).toBe("NotFound");
    expect(await deleteUser(db, "usr_none").catch(code)).toBe("NotFound");
  });

  it("deletes everything of a user with them, the ledger too", async () => {
    const user = await createUser(db, person("leaving"));
    await test.database.transaction((trx) => deleteUser(trx, user.id));
    expect(await findUser(db, user.id)).toBeUndefined();
    expect(await ledgerOf(user.id)).toEqual([]);
  });

  it("sets a balance through the ledger, once per key, never below what is held", async () => {
    const user = await createUser(db, person("rich"));
    const set = (balance: number, idempotency_key: string, note?: string) =>
      setBalance(db, user.id, balance, note === undefined ? { idempotency_key } : { idempotency_key, note });
    expect(await set(800, "a", "top up")).toEqual({ balance_microcredits: 800, held_microcredits: 0 });
    expect(await set(100, "b")).toMatchObject({ balance_microcredits: 100 });
    expect(await set(800, "a")).toMatchObject({ balance_microcredits: 100 });
    await sql`UPDATE users SET token_held = 60 WHERE id = ${user.id}`.execute(db);
    expect(await set(59, "c").catch(code)).toBe("Conflict");
    expect(await set(60, "d")).toEqual({ balance_microcredits: 60, held_microcredits: 60 });
    const ledger = await ledgerOf(user.id);
    expect(ledger.map(({ balance_delta }) => balance_delta)).toEqual([500, 300, -700, -40]);
    expect(ledger[1]?.note).toBe("top up");
    expect(await setBalance(db, "usr_none", 1, { idempotency_key: "x" }).catch(code)).toBe("NotFound");
  });

  it("keeps ledger and balance equal under simultaneous changes", async () => {
    const user = await createUser(db, person("busy"));
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        setBalance(db, user.id, n * 10, { idempotency_key: String(n % 15) }),
      ),
    );
    const entries = await ledgerOf(user.id);
    expect(entries).toHaveLength(16);
    const sum = entries.reduce((total, { balance_delta }) => total + balance_delta, 0);
    expect((await findUser(db, user.id))?.token_balance).toBe(sum);
  });
});
