import { AppError } from "#schemas";
import type { Db } from "../schema.ts";
import type { Project } from "./types.ts";

/** @throws AppError NotFound. */
export async function getProject(db: Db, id: string): Promise<Project> {
  const row = await db.selectFrom("projects").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined) throw projectNotFound(id);
  return row;
}

/**
 * A project of this owner.
 * @throws AppError NotFound, also for somebody else's: whether it exists is none of the caller's business.
 */
export async function getOwnProject(db: Db, id: string, ownerId: string): Promise<Project> {
  const project = await getProject(db, id);
  if (project.owner_id !== ownerId) throw projectNotFound(id);
  return project;
}

/**
 * Hold a project's row to the transaction's end: the only place where writers of one project queue up.
 * It leaves readers and rows that refer to the project (a new change, a new task) alone.
 * @throws AppError NotFound.
 */
export async function lockProject(trx: Db, id: string): Promise<Project> {
  const row = await trx
    .selectFrom("projects")
    .selectAll()
    .where("id", "=", id)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (row === undefined) throw projectNotFound(id);
  return row;
}

export function projectNotFound(id: string): AppError {
  return new AppError("NotFound", `There is no project ${JSON.stringify(id)}.`, {
    hint: "project.list names yours.",
  });
}

export function revisionNotFound(revision: number, head: number): AppError {
  return new AppError("NotFound", `There is no revision ${revision}; the newest is ${head}.`, {
    hint: "project.revisions lists them.",
  });
}
