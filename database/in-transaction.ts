import { setTimeout as sleep } from "node:timers/promises";
import { isSerializationFailure } from "./errors.ts";
import type { Db } from "./schema.ts";

const ATTEMPTS = 5;

/**
 * Run several statements as one: in the caller's transaction when there is one, else in one of its own. That is
 * run again when the server rolled it back because of others, so `fn` must do nothing but SQL.
 */
export async function inTransaction<T>(db: Db, fn: (trx: Db) => Promise<T>): Promise<T> {
  if (db.isTransaction) return fn(db);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await db.transaction().execute(fn);
    } catch (error) {
      if (!isSerializationFailure(error) || attempt >= ATTEMPTS) throw error;
      await sleep(Math.random() * 20 * 2 ** attempt);
    }
  }
}
