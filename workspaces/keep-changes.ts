import type { Database } from "#database";
import { commitEdits, getProject, insertChange, proposedBytes, putBlobs } from "#database/projects/index.ts";
import type { Edit, Quota } from "#database/projects/types.ts";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import type { ChangedFile } from "./collect.ts";

/** A changed file, and a revision at which the project had what it was made from. */
interface BasedFile extends ChangedFile {
  readonly base_revision: number;
}

export interface ChangesToKeep {
  readonly project_id: string;
  readonly author: string;
  readonly summary: string;
  readonly quota: Quota;
  readonly files: readonly BasedFile[];
}

/** Where changes went. */
export interface Kept {
  /** The project's revision that has them. */
  readonly revision?: number;
  /** A change to review: some of it collided with what others did. */
  readonly change_id?: string;
}

/**
 * Make a revision of what programs changed, merged with what others did meanwhile; what collides becomes a change
 * to review as a whole, so that half of a piece of work is never applied.
 * @throws AppError QuotaExceeded, NotFound; nothing is kept then.
 */
export async function keepChanges(database: Database, changes: ChangesToKeep): Promise<Kept> {
  const groups = new Map<number, BasedFile[]>();
  for (const file of changes.files) {
    groups.set(file.base_revision, [...(groups.get(file.base_revision) ?? []), file]);
  }
  let kept: Kept = {};
  // One group but for files that were held back earlier; oldest first, as their own history went.
  for (const [base_revision, files] of [...groups].sort(([one], [other]) => one - other)) {
    kept = { ...kept, ...(await keepGroup(database, changes, base_revision, files)) };
  }
  return kept;
}

async function keepGroup(
  database: Database,
  { project_id, author, summary, quota }: ChangesToKeep,
  base_revision: number,
  files: readonly BasedFile[],
): Promise<Kept> {
  const edits: Edit[] = files.map(({ path, content, executable }) => ({ path, content, executable }));
  const commit = { project_id, author, summary, quota, kind: "run", edits, base_revision } as const;
  try {
    const before = await getProject(database.db, project_id);
    const { revision } = await commitEdits(database, commit);
    return revision === before.head_revision ? {} : { revision };
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== "Conflict") throw error;
  }
  const held = await proposedBytes(database.db, project_id);
  const added = files.reduce((sum, { content }) => sum + (content?.length ?? 0), 0);
  if (held + added > quota.projectBytes) {
    throw new AppError("QuotaExceeded", "Too much waits for review in this project.", {
      limit: quota.projectBytes,
      hint: "Accept or reject some of the changes that change.list shows.",
    });
  }
  const contents = files.flatMap(({ content }) => (content === null ? [] : [content]));
  const hashes = (await putBlobs(database.db, contents)).values();
  const id = newId("change");
  await database.transaction((trx) =>
    insertChange(trx, {
      id,
      project_id,
      author,
      base_revision,
      summary,
      files: files.map(({ path, base, content, executable }) => ({
        path,
        base_hash: base?.blob_hash ?? null,
        new_hash: content === null ? null : (hashes.next().value ?? null),
        executable,
      })),
    }),
  );
  return { change_id: id };
}
