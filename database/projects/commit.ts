import { sql } from "kysely";
import { AppError } from "#schemas";
import type { Db } from "../schema.ts";
import { directoriesAbove, rangeBelow, showPath } from "./paths.ts";
import { checkGrowth } from "./quotas.ts";
import { sameVersion } from "./three-way.ts";
import { clashesAmong } from "./tree.ts";
import type { Conflict, Delta, FileVersion, Project, Quota, RevisionKind } from "./types.ts";

/** Who made a revision and why. */
export interface Commit {
  readonly author: string;
  readonly kind: RevisionKind;
  /** One line a person reads in the history. */
  readonly summary: string;
  readonly change_id?: string | undefined;
  readonly quota: Quota;
  /** Make a revision even when nothing differs (a rollback to the present tree). */
  readonly always?: boolean;
}

/** What stands at these paths at present. */
export async function currentVersions(
  db: Db,
  projectId: string,
  paths: readonly string[],
): Promise<Map<string, FileVersion & { revision: number }>> {
  const { rows } = await sql<FileVersion & { path: string; revision: number }>`
    SELECT path, blob_hash, size, executable, revision FROM project_files
    WHERE project_id = ${projectId} AND path = ANY(${paths}::text[])
  `.execute(db);
  return new Map(rows.map(({ path, ...version }) => [path, version]));
}

/** What stood at these paths at a revision. */
export async function versionsAt(
  db: Db,
  projectId: string,
  paths: readonly string[],
  revision: number,
): Promise<Map<string, FileVersion>> {
  const { rows } = await sql<FileVersion & { path: string }>`
    SELECT wanted.path, was.blob_hash, was.size, was.executable
    FROM unnest(${paths}::text[]) AS wanted(path)
    CROSS JOIN LATERAL (
      SELECT blob_hash, size, executable FROM revision_files
      WHERE project_id = ${projectId} AND revision_files.path = wanted.path AND revision <= ${revision}
      ORDER BY revision DESC LIMIT 1
    ) AS was
    WHERE was.blob_hash IS NOT NULL
  `.execute(db);
  return new Map(rows.map(({ path, ...version }) => [path, version]));
}

/**
 * Make these deltas the project's next revision. The caller holds the project's row (`lockProject`) and
 * has stored the contents; deltas that change nothing are left out.
 * @returns the new revision, or the present one when nothing differs.
 * @throws AppError Conflict (`details.conflicts`) when a file would stand where a directory is, QuotaExceeded.
 */
export async function writeRevision(
  trx: Db,
  project: Project,
  deltas: readonly Delta[],
  commit: Commit,
): Promise<number> {
  const { changed, present } = await effectOf(trx, project.id, deltas);
  if (changed.length === 0 && commit.always !== true) return project.head_revision;
  let files = project.file_count;
  let size = project.size_bytes;
  for (const { path, to } of changed) {
    const before = present.get(path);
    files += (to === null ? 0 : 1) - (before === undefined ? 0 : 1);
    size += (to?.size ?? 0) - (before?.size ?? 0);
  }
  const added = await newBytes(trx, project.id, changed);
  await checkGrowth(trx, commit.quota, { project, files, size, added });
  const revision = project.head_revision + 1;
  await insertRevision(trx, { project_id: project.id, revision, files, size, added }, changed, commit);
  return revision;
}

/**
 * Which of these deltas change anything, and what is there now.
 * @throws AppError Conflict (`details.conflicts`) when a file would stand where a directory is.
 */
export async function effectOf(
  db: Db,
  projectId: string,
  deltas: readonly Delta[],
): Promise<{ changed: Delta[]; present: Map<string, FileVersion> }> {
  const present = await currentVersions(
    db,
    projectId,
    deltas.map((delta) => delta.path),
  );
  const changed = deltas.filter(({ path, to }) => !sameVersion(present.get(path) ?? null, to));
  const clashes = await findClashes(db, projectId, changed, new Set(present.keys()));
  if (clashes.length > 0) throw conflictError(clashes);
  return { changed, present };
}

/** Bytes of the contents among these that the project's history does not have yet. */
async function newBytes(trx: Db, projectId: string, deltas: readonly Delta[]): Promise<number> {
  const sizes = new Map<string, number>();
  for (const { to } of deltas) if (to !== null) sizes.set(to.blob_hash.toString("hex"), to.size);
  if (sizes.size === 0) return 0;
  const hashes = [...sizes.keys()].map((hash) => Buffer.from(hash, "hex"));
  const { rows } = await sql<{ blob_hash: Buffer }>`
    SELECT wanted.hash AS blob_hash FROM unnest(${hashes}::bytea[]) AS wanted(hash)
    WHERE EXISTS (SELECT 1 FROM revision_files f WHERE f.blob_hash = wanted.hash AND f.project_id = ${projectId})
  `.execute(trx);
  for (const { blob_hash } of rows) sizes.delete(blob_hash.toString("hex"));
  return [...sizes.values()].reduce((sum, size) => sum + size, 0);
}

/** History, present files and the project's sums: one statement, so that they can never disagree. */
async function insertRevision(
  trx: Db,
  next: {
    readonly project_id: string;
    readonly revision: number;
    readonly files: number;
    readonly size: number;
    readonly added: number;
  },
  changed: readonly Delta[],
  commit: Commit,
): Promise<void> {
  const { project_id, revision } = next;
  const columns = {
    paths: changed.map(({ path }) => path),
    hashes: changed.map(({ to }) => to?.blob_hash ?? null),
    sizes: changed.map(({ to }) => to?.size ?? 0),
    executables: changed.map(({ to }) => to?.executable ?? false),
  };
  await sql`
    WITH delta AS (
      SELECT * FROM unnest(
        ${columns.paths}::text[], ${columns.hashes}::bytea[], ${columns.sizes}::int[], ${columns.executables}::bool[]
      ) AS d(path, blob_hash, size, executable)
    ), head AS (
      UPDATE projects SET head_revision = ${revision}, file_count = ${next.files}, size_bytes = ${next.size},
        history_bytes = history_bytes + ${next.added},
        updated_at = now()
      WHERE id = ${project_id}
    ), entry AS (
      INSERT INTO revisions (project_id, revision, author, kind, summary, change_id, files)
      VALUES (${project_id}, ${revision}, ${commit.author}, ${commit.kind}, ${commit.summary},
        ${commit.change_id ?? null}, ${changed.length})
    ), history AS (
      INSERT INTO revision_files (project_id, path, revision, blob_hash, size, executable)
      SELECT ${project_id}, path, ${revision}, blob_hash, size, executable FROM delta
    ), gone AS (
      DELETE FROM project_files USING delta
      WHERE project_files.project_id = ${project_id} AND project_files.path = delta.path AND delta.blob_hash IS NULL
    )
    INSERT INTO project_files (project_id, path, blob_hash, size, executable, revision)
    SELECT ${project_id}, path, blob_hash, size, executable, ${revision} FROM delta WHERE blob_hash IS NOT NULL
    ON CONFLICT (project_id, path) DO UPDATE SET blob_hash = excluded.blob_hash, size = excluded.size,
      executable = excluded.executable, revision = excluded.revision
  `.execute(trx);
}

/**
 * Paths whose new files would stand where a directory is (or need a file as a directory) once the deltas
 * are applied. `present`: those of the deltas' paths that have a file now; they cannot clash anew.
 */
export async function findClashes(
  db: Db,
  projectId: string,
  deltas: readonly Delta[],
  present: ReadonlySet<string>,
): Promise<Conflict[]> {
  const added = deltas.filter(({ path, to }) => to !== null && !present.has(path)).map(({ path }) => path);
  if (added.length === 0) return [];
  const removed = deltas.filter(({ to }) => to === null).map(({ path }) => path);
  const above = new Map<string, string[]>();
  for (const path of added) {
    for (const directory of directoriesAbove(path))
      above.set(directory, [...(above.get(directory) ?? []), path]);
  }
  const ranges = added.map(rangeBelow);
  const { rows } = await sql<{ path: string; is_file: boolean }>`
    SELECT path, true AS is_file FROM project_files
    WHERE project_id = ${projectId} AND path = ANY(${[...above.keys()]}::text[]) AND path <> ALL(${removed}::text[])
    UNION ALL
    SELECT added.path, false AS is_file
    FROM unnest(${added}::text[], ${ranges.map((range) => range?.from)}::text[],
      ${ranges.map((range) => range?.to)}::text[]) AS added(path, low, high)
    WHERE EXISTS (
      SELECT 1 FROM project_files f
      WHERE f.project_id = ${projectId} AND f.path >= added.low AND f.path < added.high
        AND f.path <> ALL(${removed}::text[])
    )
  `.execute(db);
  const clashing = new Set(clashesAmong(added));
  for (const row of rows) {
    for (const path of row.is_file ? (above.get(row.path) ?? []) : [row.path]) clashing.add(path);
  }
  return [...clashing].sort().map((path) => ({ path, kind: "file_directory" }));
}

/** The error of a write that would lose somebody's work. */
export function conflictError(conflicts: readonly Conflict[], revision?: number): AppError {
  const [first] = conflicts;
  const rest = conflicts.length > 1 ? ` and ${conflicts.length - 1} more` : "";
  const path = showPath(first?.path ?? "");
  const message =
    first?.kind === "file_directory"
      ? `${path}${rest}: a file and a directory cannot have the same name.`
      : `${path}${rest} changed in the meantime in a way that cannot be merged.`;
  return new AppError("Conflict", message, {
    conflicts: [...conflicts],
    ...(revision === undefined ? {} : { current_revision: revision }),
    hint:
      first?.kind === "file_directory"
        ? "Choose another name, or delete the other one first."
        : "Read the present content, decide what to keep, and send that. Nothing was changed.",
  });
}
