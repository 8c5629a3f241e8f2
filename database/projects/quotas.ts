import { sql } from "kysely";
import { AppError } from "#schemas";
import type { Db } from "../schema.ts";
import { showPath } from "./paths.ts";
import type { Project, Quota } from "./types.ts";

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/** Refuse one file that is too large. @throws AppError QuotaExceeded naming path, limit and size. */
export function checkFileSize(quota: Quota, path: string, size: number): void {
  if (size > quota.fileBytes) {
    throw exceeded(
      "file_bytes",
      `The file ${showPath(path)} is ${bytes(size)}`,
      "file",
      quota.fileBytes,
      size,
    );
  }
}

/** All versions of a user's files together may take this many times what the present ones may. */
const HISTORY_FACTOR = 10;

/** A project's size after a revision: only growing can exceed, so that too much can always be deleted. */
export interface Growth {
  readonly project: Pick<Project, "id" | "owner_id" | "file_count" | "size_bytes">;
  readonly files: number;
  readonly size: number;
  /** Bytes of contents that are new to the project's history. */
  readonly added: number;
}

/**
 * Refuse a revision that makes its project or its owner exceed their share.
 * Call it in the transaction that holds the project's row; it waits for the owner's other writers.
 * @throws AppError QuotaExceeded naming limit and actual.
 */
export async function checkGrowth(
  db: Db,
  quota: Quota,
  { project, files, size, added }: Growth,
): Promise<void> {
  if (files > project.file_count && files > quota.projectFiles) {
    const what = `The project would have ${files} files`;
    throw exceeded("project_files", what, "project", quota.projectFiles, files);
  }
  if (added > 0) await checkHistory(db, quota, project.owner_id, added);
  if (size <= project.size_bytes) return;
  if (size > quota.projectBytes) {
    throw exceeded(
      "project_bytes",
      `The project would take ${bytes(size)}`,
      "project",
      quota.projectBytes,
      size,
    );
  }
  await lockOwner(db, project.owner_id);
  const { others } = await db
    .selectFrom("projects")
    .select(sql<number>`coalesce(sum(size_bytes), 0)::bigint`.as("others"))
    .where("owner_id", "=", project.owner_id)
    .where("id", "<>", project.id)
    .executeTakeFirstOrThrow();
  const total = others + size;
  if (total > quota.userBytes) {
    throw exceeded("user_bytes", `Your projects would take ${bytes(total)}`, "user", quota.userBytes, total);
  }
}

/** History is never rewritten, so that saving one file for ever would fill the disk for everybody. */
async function checkHistory(db: Db, quota: Quota, ownerId: string, added: number): Promise<void> {
  await lockOwner(db, ownerId);
  const { stored } = await db
    .selectFrom("projects")
    .select(sql<number>`coalesce(sum(history_bytes), 0)::bigint`.as("stored"))
    .where("owner_id", "=", ownerId)
    .executeTakeFirstOrThrow();
  const limit = quota.userBytes * HISTORY_FACTOR;
  if (stored + added <= limit) return;
  const what = `All versions of your files would take ${bytes(stored + added)}`;
  throw exceeded("user_history_bytes", what, "user", limit, stored + added);
}

/** Refuse one project too many. @throws AppError QuotaExceeded. */
export async function checkProjectCount(db: Db, quota: Quota, ownerId: string): Promise<void> {
  await lockOwner(db, ownerId);
  const { count } = await db
    .selectFrom("projects")
    .select(sql<number>`count(*)::bigint`.as("count"))
    .where("owner_id", "=", ownerId)
    .executeTakeFirstOrThrow();
  if (count + 1 > quota.userProjects) {
    const what = `You would have ${count + 1} projects`;
    throw exceeded("user_projects", what, "user", quota.userProjects, count + 1);
  }
}

/**
 * One writer per owner from here to the transaction's end, so that two cannot each fill the last free byte.
 * Not the users row: the ledger needs that one. Always taken after a project's row, never before.
 */
async function lockOwner(db: Db, ownerId: string): Promise<void> {
  await sql`SELECT pg_advisory_xact_lock(hashtext('project quota'), hashtext(${ownerId}))`.execute(db);
}

/** A number of bytes as a person reads it. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number(value.toFixed(1))} ${UNITS[unit]}`;
}

export function exceeded(
  quota:
    | "file_bytes"
    | "project_bytes"
    | "project_files"
    | "user_bytes"
    | "user_history_bytes"
    | "user_projects",
  what: string,
  per: "file" | "project" | "user",
  limit: number,
  actual: number,
): AppError {
  const shown = quota.endsWith("_bytes") ? bytes(limit) : String(limit);
  return new AppError("QuotaExceeded", `${what}; the limit per ${per} is ${shown}.`, {
    quota,
    limit,
    actual,
    hint:
      quota === "user_history_bytes"
        ? "Delete a project with its history, or ask an administrator for more."
        : "Delete something, or ask an administrator for more.",
  });
}
