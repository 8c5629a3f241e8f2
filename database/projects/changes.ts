import { sql } from "kysely";
import { AppError } from "#schemas";
import { after, createdAtMicros, readCursor, writeCursor } from "../cursor.ts";
import type { ChangeRow, Db } from "../schema.ts";
import { versionsAt } from "./commit.ts";
import { normalizePath, showPath } from "./paths.ts";
import type { PathChange } from "./renames.ts";

/** What somebody (an agent) proposes: contents are stored already (`putBlobs`). */
export interface NewChange {
  readonly id: string;
  readonly project_id: string;
  readonly task_id?: string | null | undefined;
  readonly author: string;
  /** The revision it was made from. */
  readonly base_revision: number;
  readonly summary: string;
  /** Proposed changes its files are made over: once it is accepted, so are they. */
  readonly builds_on?: readonly string[] | undefined;
  /** The proposed change it replaces: once it is accepted, that one is rejected. */
  readonly resolves?: string | undefined;
  /** The revision it undoes: accepted it is a rollback. */
  readonly reverts?: number | null | undefined;
  /** The change of which a part was accepted; this one is what was left. */
  readonly rest_of?: string | undefined;
  readonly files: readonly {
    readonly path: string;
    /** Null: the file is new. */
    readonly base_hash: Buffer | null;
    /** Null: the file is deleted. */
    readonly new_hash: Buffer | null;
    readonly executable: boolean;
  }[];
}

/**
 * Record a proposed change, in the caller's transaction.
 * @returns false when its project is gone: nothing was written, and the transaction can go on.
 * @throws AppError InvalidParams for a path the project could not store or that comes twice.
 */
export async function insertChange(db: Db, change: NewChange): Promise<boolean> {
  const paths = new Set(change.files.map(({ path }) => normalizePath(path)));
  const odd = change.files.find(({ path }) => !paths.has(path));
  if (odd !== undefined || paths.size !== change.files.length) {
    throw new AppError(
      "InvalidParams",
      `The change has a path that is not unique and normal: ${showPath(odd?.path ?? "")}`,
    );
  }
  // Waits for a deletion under way: the reference to a project just gone would fail the whole transaction.
  const project = await db
    .selectFrom("projects")
    .select("id")
    .where("id", "=", change.project_id)
    .forKeyShare()
    .executeTakeFirst();
  if (project === undefined) return false;
  const { files, task_id = null, builds_on = [], resolves = null, ...row } = change;
  const { reverts = null, rest_of = null } = change;
  await db
    .insertInto("changes")
    .values({ ...row, task_id, builds_on: [...builds_on], resolves, reverts, rest_of })
    .execute();
  await insertFiles(db, change.id, files);
  return true;
}

/** Make these the files of a change, in the place of those it has. */
export async function replaceFiles(db: Db, id: string, files: NewChange["files"]): Promise<void> {
  await db.deleteFrom("change_files").where("change_id", "=", id).execute();
  await insertFiles(db, id, files);
}

/** A change's files as they are stored. */
export function filesToStore(files: readonly ChangeFile[]): NewChange["files"] {
  return files.map(({ path, before, after }) => ({
    path,
    base_hash: before?.blob_hash ?? null,
    new_hash: after?.blob_hash ?? null,
    executable: (after ?? before)?.executable ?? false,
  }));
}

async function insertFiles(db: Db, id: string, files: NewChange["files"]): Promise<void> {
  await sql`
    INSERT INTO change_files (change_id, path, base_hash, new_hash, executable)
    SELECT ${id}, * FROM unnest(
      ${files.map(({ path }) => path)}::text[], ${files.map((file) => file.base_hash)}::bytea[],
      ${files.map((file) => file.new_hash)}::bytea[], ${files.map(({ executable }) => executable)}::bool[])
  `.execute(db);
}

/** Bytes that changes of a project hold that nobody has decided on. */
export async function proposedBytes(db: Db, project_id: string): Promise<number> {
  const { bytes } = await db
    .selectFrom("change_files")
    .innerJoin("changes", "changes.id", "change_files.change_id")
    .innerJoin("blobs", "blobs.hash", "change_files.new_hash")
    .select(sql<number>`coalesce(sum(blobs.size), 0)::bigint`.as("bytes"))
    .where("changes.project_id", "=", project_id)
    .where("changes.state", "=", "proposed")
    .executeTakeFirstOrThrow();
  return bytes;
}

/** @throws AppError NotFound. */
export async function getChange(db: Db, id: string): Promise<ChangeRow> {
  const row = await db.selectFrom("changes").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined) throw changeNotFound(id);
  return row;
}

/** A change of a project of this owner. @throws AppError NotFound, also for somebody else's. */
export async function getOwnChange(db: Db, id: string, ownerId: string): Promise<ChangeRow> {
  const row = await db
    .selectFrom("changes")
    .innerJoin("projects", "projects.id", "changes.project_id")
    .selectAll("changes")
    .where("changes.id", "=", id)
    .where("projects.owner_id", "=", ownerId)
    .executeTakeFirst();
  if (row === undefined) throw changeNotFound(id);
  return row;
}

function changeNotFound(id: string): AppError {
  return new AppError("NotFound", `There is no change ${JSON.stringify(id)}.`, {
    hint: "change.list names a project's.",
  });
}

/** A project's changes, newest first. @throws AppError InvalidParams for a made-up cursor. */
export async function listChanges(
  db: Db,
  page: {
    readonly project_id: string;
    readonly state?: ChangeRow["state"] | undefined;
    readonly cursor?: string | undefined;
    readonly limit: number;
  },
): Promise<{ changes: ChangeRow[]; next_cursor?: string }> {
  let query = db
    .selectFrom("changes")
    .selectAll()
    .select(createdAtMicros.as("at"))
    .where("project_id", "=", page.project_id)
    .orderBy("created_at", "desc")
    .orderBy("id", "desc")
    .limit(page.limit + 1);
  if (page.state !== undefined) query = query.where("state", "=", page.state);
  if (page.cursor !== undefined) query = query.where(after(readCursor(page.cursor)));
  const rows = await query.execute();
  const changes = rows.slice(0, page.limit);
  const last = changes.at(-1);
  return rows.length > page.limit && last !== undefined
    ? { changes, next_cursor: writeCursor(last) }
    : { changes };
}

/** One file of a change: what it was made from and what it makes of it. */
export type ChangeFile = PathChange;

/** A change's files in byte order of the paths. */
export async function changeFiles(db: Db, change: ChangeRow): Promise<ChangeFile[]> {
  const { rows } = await sql<{
    path: string;
    executable: boolean;
    base_hash: Buffer | null;
    base_size: number | null;
    new_hash: Buffer | null;
    new_size: number | null;
  }>`
    SELECT f.path, f.executable, f.base_hash, was.size AS base_size, f.new_hash, will.size AS new_size
    FROM change_files f
    LEFT JOIN blobs was ON was.hash = f.base_hash
    LEFT JOIN blobs will ON will.hash = f.new_hash
    WHERE f.change_id = ${change.id} ORDER BY f.path
  `.execute(db);
  const bases = await versionsAt(
    db,
    change.project_id,
    rows.map(({ path }) => path),
    change.base_revision,
  );
  return rows.map(({ path, executable, ...row }) => {
    const bit = bases.get(path)?.executable ?? executable;
    return {
      path,
      before: row.base_hash && { blob_hash: row.base_hash, size: row.base_size ?? 0, executable: bit },
      after: row.new_hash && { blob_hash: row.new_hash, size: row.new_size ?? 0, executable },
    };
  });
}
