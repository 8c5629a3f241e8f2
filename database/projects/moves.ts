import { sql } from "kysely";
import { AppError } from "#schemas";
import type { Database } from "../open.ts";
import type { Db } from "../schema.ts";
import { putBlobs } from "./blobs.ts";
import { writeRevision } from "./commit.ts";
import { normalizePath, rangeBelow, showPath } from "./paths.ts";
import { lockProject } from "./project.ts";
import { pathNotFound } from "./reading.ts";
import type { Delta, NamedVersion, Quota } from "./types.ts";

/** What keeps an otherwise empty directory, as git users do. */
const KEEP_FILE = ".gitkeep";

interface Operation {
  readonly project_id: string;
  readonly author: string;
  readonly quota: Quota;
}

/** Delete a file, or a directory with everything in it. @throws AppError NotFound, InvalidParams. */
export async function deletePath(
  database: Database,
  { path, ...operation }: Operation & { readonly path: string },
): Promise<{ revision: number }> {
  const normal = normalizePath(path);
  return commitDeltas(database, operation, `Delete ${normal}`, async (trx) => {
    const files = await filesAt(trx, operation.project_id, normal);
    if (files.length === 0) throw pathNotFound(normal);
    return files.map((file) => ({ path: file.path, to: null }));
  });
}

interface Relocation extends Operation {
  readonly src: string;
  readonly dest: string;
}

/** Move a file or a directory. @throws AppError NotFound, Conflict when the destination exists, InvalidParams. */
export async function movePath(database: Database, relocation: Relocation): Promise<{ revision: number }> {
  return relocate(database, relocation, true);
}

/** Copy a file or a directory. @throws as `movePath`, and QuotaExceeded. */
export async function copyPath(database: Database, relocation: Relocation): Promise<{ revision: number }> {
  return relocate(database, relocation, false);
}

async function relocate(
  database: Database,
  { src, dest, ...operation }: Relocation,
  isMove: boolean,
): Promise<{ revision: number }> {
  const [from, to] = [normalizePath(src), normalizePath(dest)];
  const verb = isMove ? "Move" : "Copy";
  return commitDeltas(database, operation, `${verb} ${from} to ${to}`, async (trx) => {
    const files = await filesAt(trx, operation.project_id, from);
    if (files.length === 0) throw pathNotFound(from);
    if (to.startsWith(`${from}/`)) {
      const message = `${showPath(from)} cannot be put into itself.`;
      throw new AppError("InvalidParams", message, { issues: [{ path: "dest", message }] });
    }
    const standing = await filesAt(trx, operation.project_id, to, 1);
    if (standing.length > 0) throw exists(to);
    const deltas: Delta[] = isMove ? files.map(({ path }) => ({ path, to: null })) : [];
    for (const { path, ...version } of files) {
      // A directory's files keep their place below it; their new paths must fit, too.
      deltas.push({ path: normalizePath(to + path.slice(from.length)), to: version });
    }
    return deltas;
  });
}

/** Make a directory by an empty `.gitkeep`. @throws AppError Conflict when something of that name exists. */
export async function makeDirectory(
  database: Database,
  { path, ...operation }: Operation & { readonly path: string },
): Promise<{ revision: number }> {
  const normal = normalizePath(path);
  const keep = normalizePath(`${normal}/${KEEP_FILE}`);
  const [blob_hash] = await putBlobs(database.db, [Buffer.alloc(0)]);
  return commitDeltas(database, operation, `Make the directory ${normal}`, async (trx) => {
    const standing = await filesAt(trx, operation.project_id, normal, 1);
    if (standing.length > 0 || blob_hash === undefined) throw exists(normal);
    return [{ path: keep, to: { blob_hash, size: 0, executable: false } }];
  });
}

function exists(path: string): AppError {
  return new AppError("Conflict", `${showPath(path)} exists already.`, {
    conflicts: [{ path, kind: "add_add" }],
    hint: "Choose another name, or delete it first.",
  });
}

/** The file at a path, or every file below it. */
async function filesAt(db: Db, projectId: string, path: string, limit?: number): Promise<NamedVersion[]> {
  const range = rangeBelow(path);
  const { rows } = await sql<NamedVersion>`
    SELECT path, blob_hash, size, executable FROM project_files
    WHERE project_id = ${projectId}
      AND (path = ${path} OR (path >= ${range?.from} AND path < ${range?.to}))
    ORDER BY path LIMIT ${limit ?? null}::int
  `.execute(db);
  return rows;
}

async function commitDeltas(
  database: Database,
  operation: Operation,
  summary: string,
  plan: (trx: Db) => Promise<Delta[]>,
): Promise<{ revision: number }> {
  const { project_id, author, quota } = operation;
  return database.transaction(async (trx) => {
    const project = await lockProject(trx, project_id);
    const deltas = await plan(trx);
    return { revision: await writeRevision(trx, project, deltas, { author, summary, kind: "edit", quota }) };
  });
}
