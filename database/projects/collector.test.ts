import { sql } from "kysely";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { createLogger } from "#platform/log.ts";
import { type TestDatabase, testDatabase } from "#tests/support/database.ts";
import { putBlobs, startBlobCollector } from "./index.ts";

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test?.[Symbol.asyncDispose]());

it("removes what nobody refers to by itself, survives a failing database, and stops when closed", async () => {
  const { db } = test.database;
  const lines: string[] = [];
  const log = createLogger({ level: "info", pretty: false }, { write: (line) => void lines.push(line) });
  const collector = startBlobCollector(db, log, 20);
  const count = async () => (await db.selectFrom("blobs").select("hash").execute()).length;
  await putBlobs(
    db,
    Array.from({ length: 1200 }, (_, i) => Buffer.from(`loose ${i}`)),
  );
  await sql`UPDATE blobs SET touched_at = now() - interval '2 hours'`.execute(db);
  await expect.poll(count).toBe(0);
  await sql`ALTER TABLE change_files RENAME TO away`.execute(db);
  await expect.poll(() => lines.some((line) => line.includes("a chore failed"))).toBe(true);
  await sql`ALTER TABLE away RENAME TO change_files`.execute(db);
  await collector.close();
  const removed = lines.map((line) => (JSON.parse(line) as { removed?: number }).removed ?? 0);
  expect(removed.reduce((sum, one) => sum + one, 0)).toBe(1200);
});
