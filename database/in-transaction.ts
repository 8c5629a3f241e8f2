import { setTimeout as sleep } from "node:timers/promises";
import { isConnectionFailure, isPoolTimeout, isSerializationFailure } from "./errors.ts";
import type { Db } from "./schema.ts";

const ATTEMPTS = 5;
const FIRST_DELAY_MS = 20;

/**
 * Run several statements as one: in the caller's transaction when there is one, else in one of its own.
 * That one is run again (so `fn` must do nothing but SQL) when the server rolled it back because of others, or
 * when the connection broke before COMMIT was sent; never when its outcome is unknown, and never after waiting
 * in vain for a connection (DB-2).
 */
export async function inTransaction<T>(db: Db, fn: (trx: Db) => Promise<T>): Promise<T> {
  if (db.isTransaction) return fn(db);
  for (let attempt = 1; ; attempt += 1) {
    let committing = false;
    let thrown: { error: unknown } | undefined;
    try {
      return await db.transaction().execute(async (trx) => {
        const result = await fn(trx).catch((error: unknown) => {
          thrown = { error };
          throw error;
        });
        committing = true;
        return result;
      });
    } catch (outer) {
      // A ROLLBACK that fails on a broken connection would hide what went wrong first.
      const error = thrown === undefined ? outer : thrown.error;
      const lost = !committing && isConnectionFailure(error) && !isPoolTimeout(error);
      if (attempt >= ATTEMPTS || !(lost || isSerializationFailure(error))) throw error;
      await sleep(Math.random() * FIRST_DELAY_MS * 2 ** attempt);
    }
  }
}
