import { type Budget, projectBudget, setProjectBudget, userBudget } from "#database/ledger/index.ts";
import { getOwnProject } from "#database/projects/index.ts";
import type { MethodResult } from "#schemas";
import type { HandlersOf } from "../handler.ts";

export const budgetHandlers: HandlersOf<"budget."> = {
  "budget.get": async ({ caller, database: { db } }, { project_id }) => {
    if (project_id === undefined) return budgetView(await userBudget(db, caller.user_id));
    await getOwnProject(db, project_id, caller.user_id);
    return budgetView(await projectBudget(db, project_id));
  },

  "budget.set": async ({ caller, database: { db }, log }, { project_id, limit, period }) => {
    await getOwnProject(db, project_id, caller.user_id);
    const budget = await setProjectBudget(db, project_id, { limit, period });
    log.info({ project_id, limit, period }, "budget of a project set");
    return budgetView(budget);
  },
};

function budgetView({ resets_at, ...budget }: Budget): MethodResult<"budget.get"> {
  return { ...budget, resets_at: resets_at?.toISOString() ?? null };
}
