import { createHash } from "node:crypto";
import { sql } from "kysely";
import { isForeignKeyViolation } from "../errors.ts";
import type { Db } from "../schema.ts";
import { checkFileSize } from "./quotas.ts";
import type { NamedVersion, Quota } from "./types.ts";

/** One INSERT takes this much at most, so that neither side buffers a whole import. */
const BATCH_BYTES = 8 * 1024 * 1024;
const BATCH_ROWS = 500;
/** How long a content may lie unreferenced before it is removed, hours: longer than any request lives. */
const GRACE_HOURS = 1;
/** A content handed in again is marked so again only when its mark is older than this, minutes. */
const TOUCH_MINUTES = 10;

/** The name of a content: its sha256. */
export function hashContent(content: Buffer): Buffer {
  return createHash("sha256").update(content).digest();
}

/**
 * Store contents that are not stored yet; each is kept for an hour even if nothing refers to it.
 * @returns their hashes in the same order.
 */
export async function putBlobs(db: Db, contents: readonly Buffer[]): Promise<Buffer[]> {
  const hashes = contents.map(hashContent);
  const missing = new Map<string, { hash: Buffer; content: Buffer }>();
  contents.forEach((content, index) => {
    const hash = hashes[index];
    if (hash !== undefined) missing.set(hash.toString("hex"), { hash, content });
  });
  for (const hash of await touchBlobs(
    db,
    [...missing.values()].map((row) => row.hash),
  )) {
    missing.delete(hash.toString("hex"));
  }
  // One order for everybody: two imports of the same files wait for each other instead of deadlocking.
  const rows = [...missing.entries()].sort(([left], [right]) => (left < right ? -1 : 1));
  for (const batch of batches(rows.map(([, row]) => ({ ...row, size: row.content.length })))) {
    await db
      .insertInto("blobs")
      .values(batch)
      .onConflict((conflict) => conflict.column("hash").doNothing())
      .execute();
  }
  return hashes;
}

/**
 * Store what files hold, as `putBlobs`.
 * @returns the files in their order, hash and size in the content's place.
 * @throws AppError QuotaExceeded for one that is too large; then nothing was stored.
 */
export async function storeFiles<T extends { readonly path: string; readonly content: Buffer }>(
  db: Db,
  files: readonly T[],
  quota: Quota,
): Promise<(Omit<T, "content"> & { blob_hash: Buffer; size: number })[]> {
  for (const { path, content } of files) checkFileSize(quota, path, content.length);
  const hashes = await putBlobs(
    db,
    files.map(({ content }) => content),
  );
  return files.flatMap(({ content, ...file }, index) => {
    const blob_hash = hashes[index];
    return blob_hash === undefined ? [] : [{ ...file, blob_hash, size: content.length }];
  });
}

/** Mark stored contents as handed in just now. Returns those that are stored. */
async function touchBlobs(db: Db, hashes: readonly Buffer[]): Promise<Buffer[]> {
  if (hashes.length === 0) return [];
  const { rows } = await sql<{ hash: Buffer }>`
    WITH stale AS (
      SELECT hash FROM blobs
      WHERE hash = ANY(${hashes}::bytea[]) AND touched_at < now() - make_interval(mins => ${TOUCH_MINUTES})
      ORDER BY hash FOR NO KEY UPDATE
    ), touched AS (
      UPDATE blobs SET touched_at = now() FROM stale WHERE blobs.hash = stale.hash RETURNING blobs.hash
    )
    SELECT hash FROM touched
    UNION ALL
    SELECT hash FROM blobs
    WHERE hash = ANY(${hashes}::bytea[]) AND touched_at >= now() - make_interval(mins => ${TOUCH_MINUTES})
  `.execute(db);
  return rows.map((row) => row.hash);
}

/** Stored contents by the hex of their hash; what is not stored is not in the answer. */
export async function readBlobs(db: Db, hashes: readonly Buffer[]): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  if (hashes.length === 0) return found;
  const { rows } = await sql<{ hash: Buffer; content: Buffer }>`
    SELECT hash, content FROM blobs WHERE hash = ANY(${hashes}::bytea[])
  `.execute(db);
  for (const row of rows) found.set(row.hash.toString("hex"), row.content);
  return found;
}

/**
 * The contents of files in their order, read page by page so that no more than a page is in memory.
 * @throws when a content is gone, because its project was deleted meanwhile.
 */
export async function* readContents<T extends NamedVersion>(
  db: Db,
  files: readonly T[],
): AsyncGenerator<{ file: T; content: Buffer }, void> {
  for (const page of batches(files)) {
    const contents = await readBlobs(
      db,
      page.map((file) => file.blob_hash),
    );
    for (const file of page) {
      const content = contents.get(file.blob_hash.toString("hex"));
      if (content === undefined) throw new Error(`the content of ${file.path} is missing in the store`);
      yield { file, content };
    }
  }
}

/** Split rows so that each part stays within a batch's bytes and rows; a larger row stands alone. */
export function* batches<T extends { readonly size: number }>(
  rows: Iterable<T>,
  maxBytes: number = BATCH_BYTES,
): Generator<T[]> {
  let batch: T[] = [];
  let bytes = 0;
  for (const row of rows) {
    if (batch.length > 0 && (bytes + row.size > maxBytes || batch.length >= BATCH_ROWS)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(row);
    bytes += row.size;
  }
  if (batch.length > 0) yield batch;
}

/**
 * Remove contents that no file, revision or change refers to and that were not handed in within the last
 * hour. Safe at any time (but not in a transaction): the database refuses to remove what is referred to in
 * the same moment.
 * @returns how many were removed, `limit` at most.
 */
export async function collectBlobs(db: Db, limit = 1000): Promise<number> {
  const removal = sql`
    WITH dead AS (
      SELECT hash FROM blobs
      WHERE touched_at < now() - make_interval(hours => ${GRACE_HOURS})
        AND NOT EXISTS (SELECT 1 FROM project_files f WHERE f.blob_hash = blobs.hash)
        AND NOT EXISTS (SELECT 1 FROM revision_files f WHERE f.blob_hash = blobs.hash)
        AND NOT EXISTS (SELECT 1 FROM change_files f WHERE f.base_hash = blobs.hash)
        AND NOT EXISTS (SELECT 1 FROM change_files f WHERE f.new_hash = blobs.hash)
      ORDER BY hash LIMIT ${limit} FOR UPDATE SKIP LOCKED
    )
    DELETE FROM blobs USING dead WHERE blobs.hash = dead.hash
  `;
  try {
    return Number((await removal.execute(db)).numAffectedRows ?? 0);
  } catch (error) {
    // Somebody referred to one of them in this very moment; the next round sees it.
    if (isForeignKeyViolation(error)) return 0;
    throw error;
  }
}
