import { sql } from "kysely";
import { AppError } from "#schemas";
import type { Db, RevisionRow } from "../schema.ts";
import { normalizeDirectory, normalizePath, rangeBelow, showPath } from "./paths.ts";
import { getProject, projectNotFound, revisionNotFound } from "./project.ts";
import type { TreeFile } from "./types.ts";

/**
 * Every file of a project, now or as of a revision (0 = empty), in byte order of the paths.
 * @throws AppError NotFound for a project or revision that does not exist.
 */
export async function readTree(db: Db, projectId: string, revision?: number): Promise<TreeFile[]> {
  if (revision === undefined) {
    const { rows } = await sql<TreeFile>`
      SELECT path, blob_hash, size, executable, revision FROM project_files
      WHERE project_id = ${projectId} ORDER BY path
    `.execute(db);
    if (rows.length === 0) await getProject(db, projectId);
    return rows;
  }
  const { head_revision } = await getProject(db, projectId);
  if (revision > head_revision || revision < 0) throw revisionNotFound(revision, head_revision);
  const present = await treeIfHead(db, projectId, revision);
  if (present.length > 0) return present;
  const { rows } = await sql<TreeFile>`
    SELECT path, blob_hash, size, executable, revision FROM (${versionsUpTo(projectId, revision, "")}) AS latest
    WHERE blob_hash IS NOT NULL ORDER BY path
  `.execute(db);
  return rows;
}

/** The present tree, or nothing where the project has moved on: one snapshot sees both. */
async function treeIfHead(db: Db, projectId: string, revision: number): Promise<TreeFile[]> {
  const { rows } = await sql<TreeFile>`
    SELECT f.path, f.blob_hash, f.size, f.executable, f.revision
    FROM projects p JOIN project_files f ON f.project_id = p.id
    WHERE p.id = ${projectId} AND p.head_revision = ${revision} ORDER BY f.path
  `.execute(db);
  return rows;
}

/** The last row of every path below a directory up to a revision; a null blob_hash = deleted there. */
function versionsUpTo(projectId: string, revision: number, directory: string) {
  return sql`
    SELECT DISTINCT ON (path) path, blob_hash, size, executable, revision FROM revision_files
    WHERE project_id = ${projectId} AND revision <= ${revision} AND ${inDirectory(directory)}
    ORDER BY path, revision DESC`;
}

function inDirectory(directory: string) {
  const range = rangeBelow(directory);
  return range === null ? sql<boolean>`true` : sql<boolean>`(path >= ${range.from} AND path < ${range.to})`;
}

export interface ReadFile {
  readonly content: Buffer;
  readonly executable: boolean;
  /** The project's revision that was read. */
  readonly revision: number;
}

/** One file, now or as of a revision. @throws AppError NotFound, InvalidParams for an impossible path. */
export async function readFile(
  db: Db,
  projectId: string,
  path: string,
  revision?: number,
): Promise<ReadFile> {
  const normal = normalizePath(path);
  const { rows } = await sql<{ head: number; content: Buffer | null; executable: boolean }>`
    SELECT p.head_revision AS head, b.content, f.executable
    FROM projects p
    LEFT JOIN LATERAL (
      SELECT blob_hash, executable FROM project_files
      WHERE ${revision ?? null}::int IS NULL AND project_id = p.id AND path = ${normal}
      UNION ALL
      (SELECT blob_hash, executable FROM revision_files
      WHERE project_id = p.id AND path = ${normal} AND revision <= ${revision ?? null}::int
      ORDER BY revision DESC LIMIT 1)
    ) f ON true
    LEFT JOIN blobs b ON b.hash = f.blob_hash
    WHERE p.id = ${projectId}
  `.execute(db);
  const [row] = rows;
  if (row === undefined) throw projectNotFound(projectId);
  if (revision !== undefined && revision > row.head) throw revisionNotFound(revision, row.head);
  if (row.content === null) throw pathNotFound(normal);
  return { content: row.content, executable: row.executable, revision: revision ?? row.head };
}

export function pathNotFound(path: string): AppError {
  return new AppError("NotFound", `There is no ${showPath(path)} in the project.`, {
    hint: "fs.list shows what there is.",
  });
}

export interface DirectoryEntry {
  readonly name: string;
  readonly type: "file" | "directory";
  /** A directory's is the sum of everything in it. */
  readonly size: number;
}

/**
 * What lies directly in a directory: directories first, each by name.
 * @throws AppError NotFound when nothing lies below the path.
 */
export async function listDirectory(
  db: Db,
  projectId: string,
  path: string,
  revision?: number,
): Promise<{ entries: DirectoryEntry[]; revision: number }> {
  const directory = normalizeDirectory(path);
  const files =
    revision === undefined
      ? sql`SELECT path, size FROM project_files WHERE project_id = ${projectId} AND ${inDirectory(directory)}`
      : sql`SELECT path, size FROM (${versionsUpTo(projectId, revision, directory)}) AS latest
          WHERE blob_hash IS NOT NULL`;
  const skipped = directory === "" ? 0 : [...directory].length + 1;
  const { rows } = await sql<{ head: number; name: string | null; is_directory: boolean; size: number }>`
    SELECT p.head_revision AS head, entry.name, entry.is_directory, entry.size
    FROM projects p LEFT JOIN (
      SELECT split_part(below, '/', 1) AS name, strpos(below, '/') > 0 AS is_directory, sum(size)::bigint AS size
      FROM (SELECT substr(path, ${skipped + 1}::int) AS below, size FROM (${files}) AS files) AS relative
      GROUP BY 1, 2
    ) AS entry ON true
    WHERE p.id = ${projectId} ORDER BY entry.is_directory DESC, entry.name
  `.execute(db);
  const [first] = rows;
  if (first === undefined) throw projectNotFound(projectId);
  if (revision !== undefined && revision > first.head) throw revisionNotFound(revision, first.head);
  if (first.name === null && directory !== "") throw pathNotFound(directory);
  const entries: DirectoryEntry[] = [];
  for (const { name, is_directory, size } of rows) {
    if (name !== null) entries.push({ name, type: is_directory ? "directory" : "file", size });
  }
  return { entries, revision: revision ?? first.head };
}

/** A project's history, newest first. @throws AppError NotFound. */
export async function listRevisions(
  db: Db,
  page: {
    readonly project_id: string;
    readonly before_revision?: number | undefined;
    readonly limit: number;
  },
): Promise<RevisionRow[]> {
  let query = db
    .selectFrom("revisions")
    .selectAll()
    .where("project_id", "=", page.project_id)
    .orderBy("revision", "desc")
    .limit(page.limit);
  if (page.before_revision !== undefined) query = query.where("revision", "<", page.before_revision);
  return query.execute();
}
