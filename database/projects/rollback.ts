import type { Database } from "../open.ts";
import { writeRevision } from "./commit.ts";
import { lockProject, revisionNotFound } from "./project.ts";
import { readTree } from "./reading.ts";
import { diffTrees } from "./tree.ts";
import type { Quota } from "./types.ts";

/**
 * Make a new revision whose tree equals an older one's; revision 0 is the empty tree.
 * @throws AppError NotFound for a revision or project that does not exist, QuotaExceeded.
 */
export async function rollbackProject(
  database: Database,
  rollback: {
    readonly project_id: string;
    readonly revision: number;
    readonly author: string;
    readonly quota: Quota;
  },
): Promise<{ revision: number }> {
  const { project_id, author, quota } = rollback;
  return database.transaction(async (trx) => {
    const project = await lockProject(trx, project_id);
    if (rollback.revision > project.head_revision) {
      throw revisionNotFound(rollback.revision, project.head_revision);
    }
    const deltas = diffTrees(
      await readTree(trx, project_id),
      await readTree(trx, project_id, rollback.revision),
    );
    const summary = `Back to revision ${rollback.revision}`;
    const commit = { author, summary, kind: "rollback", quota, always: true } as const;
    return { revision: await writeRevision(trx, project, deltas, commit) };
  });
}
