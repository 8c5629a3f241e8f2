import { getOwnProject } from "#database/projects/index.ts";
import type { HandlersOf } from "../handler.ts";

export const wasmHandlers: HandlersOf<"wasm."> = {
  "wasm.load": async ({ caller, database, workbench, signal }, params) => {
    await getOwnProject(database.db, params.project_id, caller.user_id);
    return workbench.modules.load(caller, params, signal);
  },

  "wasm.call": ({ caller, workbench, signal }, params) =>
    workbench.modules.call(caller.user_id, params, signal),

  "wasm.memory_limit": ({ caller, workbench }, params) => workbench.modules.limit(caller.user_id, params),

  "wasm.instances": async ({ caller, database, workbench }, { project_id }) => {
    if (project_id !== undefined) await getOwnProject(database.db, project_id, caller.user_id);
    return workbench.modules.list(caller.user_id, project_id);
  },

  "wasm.unload": async ({ caller, workbench }, { instance_id }) => {
    await workbench.modules.unload(caller.user_id, instance_id);
    return { instance_id, unloaded: true };
  },
};
