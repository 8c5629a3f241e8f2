import { type Acceptance, type Accepted, acceptChange, previewAcceptance } from "#database/projects/index.ts";
import { AppError } from "#schemas";
import type { Context } from "../handler.ts";

/** How often a project may move on while what would become of it is being tried. */
const ATTEMPTS = 3;

/**
 * Make a change the project's next revision. What nobody has tried in this form (something else came since its base,
 * only a part of it is taken, a person resolved a conflict) is tried first, and committed only onto the very revision
 * it was tried on. `force` takes it as it is.
 * @throws AppError as `acceptChange`, and ResultInvalid when what it comes to does not work.
 */
export async function land(
  { caller, database, workbench, signal }: Context,
  acceptance: Acceptance,
  force: boolean,
): Promise<Accepted> {
  if (force) return acceptChange(database, acceptance);
  const edited = acceptance.hunks !== undefined || (acceptance.resolutions ?? []).length > 0;
  for (let attempt = 1; ; attempt += 1) {
    const { project, head_revision, moved, files } = await previewAcceptance(database.db, acceptance);
    if (files.length > 0 && (moved || edited)) {
      await workbench.landing.check(caller.user_id, { project_id: project.id, head_revision, files }, signal);
    }
    try {
      return await acceptChange(database, { ...acceptance, expected_head: head_revision });
    } catch (error) {
      if (attempt === ATTEMPTS || !hasMoved(error)) throw error;
    }
  }
}

function hasMoved(error: unknown): boolean {
  return error instanceof AppError && error.code === "Conflict" && error.details.reason === "moved";
}
