import { sql } from "kysely";
import { newId } from "#platform/ids.ts";
import { after, createdAtMicros, readCursor, writeCursor } from "../cursor.ts";
import type { Database } from "../open.ts";
import type { Db } from "../schema.ts";
import { storeFiles } from "./blobs.ts";
import { writeRevision } from "./commit.ts";
import { normalizePath } from "./paths.ts";
import { getProject, projectNotFound } from "./project.ts";
import { checkProjectCount } from "./quotas.ts";
import type { Project, Quota } from "./types.ts";

export interface NewProject {
  readonly owner_id: string;
  readonly name: string;
  readonly quota: Quota;
  /** What the project starts with, as its revision 1. */
  readonly start?: {
    readonly author: string;
    readonly summary: string;
    readonly files: readonly { readonly path: string; readonly content: Buffer }[];
  };
}

/** Make a project. @throws AppError QuotaExceeded when the owner has too many. */
export async function createProject(database: Database, project: NewProject): Promise<Project> {
  const { start, quota } = project;
  const files = await storeFiles(database.db, start?.files ?? [], quota);
  const deltas = files.map(({ path, ...to }) => ({
    path: normalizePath(path),
    to: { ...to, executable: false },
  }));
  return database.transaction(async (trx) => {
    await checkProjectCount(trx, quota, project.owner_id);
    const row = await trx
      .insertInto("projects")
      .values({ id: newId("project"), owner_id: project.owner_id, name: project.name })
      .returningAll()
      .executeTakeFirstOrThrow();
    if (start === undefined) return row;
    const { author, summary } = start;
    await writeRevision(trx, row, deltas, { author, summary, kind: "import", quota });
    return getProject(trx, row.id);
  });
}

export interface ProjectPage {
  readonly projects: Project[];
  readonly next_cursor?: string;
}

/** An owner's projects, newest first. @throws AppError InvalidParams for a made-up cursor. */
export async function listProjects(
  db: Db,
  page: { readonly owner_id: string; readonly cursor?: string | undefined; readonly limit: number },
): Promise<ProjectPage> {
  let query = db
    .selectFrom("projects")
    .selectAll()
    .select(createdAtMicros.as("at"))
    .where("owner_id", "=", page.owner_id)
    .orderBy("created_at", "desc")
    .orderBy("id", "desc")
    .limit(page.limit + 1);
  if (page.cursor !== undefined) query = query.where(after(readCursor(page.cursor)));
  const rows = await query.execute();
  const projects = rows.slice(0, page.limit);
  const last = projects.at(-1);
  return rows.length > page.limit && last !== undefined
    ? { projects, next_cursor: writeCursor(last) }
    : { projects };
}

/** @throws AppError NotFound. */
export async function renameProject(db: Db, id: string, name: string): Promise<Project> {
  const row = await db
    .updateTable("projects")
    .set({ name, updated_at: sql<Date>`now()` })
    .where("id", "=", id)
    .returningAll()
    .executeTakeFirst();
  if (row === undefined) throw projectNotFound(id);
  return row;
}

/** Delete a project with its files, history and changes. Contents go later (`collectBlobs`). @throws NotFound. */
export async function deleteProject(db: Db, id: string): Promise<void> {
  const { numDeletedRows } = await db.deleteFrom("projects").where("id", "=", id).executeTakeFirst();
  if (numDeletedRows === 0n) throw projectNotFound(id);
}
