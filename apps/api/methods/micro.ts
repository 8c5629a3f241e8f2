import type { HandlersOf } from "../handler.ts";

export const microHandlers: HandlersOf<"micro."> = {
  "micro.start": ({ caller, workbench, signal }, params) => workbench.machines.start(caller, params, signal),

  "micro.execute": ({ caller, workbench, signal }, params) =>
    workbench.machines.execute(caller.user_id, params, signal),

  "micro.stop": async ({ caller, workbench }, { vm_id }) => {
    await workbench.machines.stop(caller.user_id, vm_id);
    return { vm_id, stopped: true };
  },

  "micro.list": ({ caller, workbench }) => workbench.machines.list(caller.user_id),

  "micro.snapshot": ({ caller, workbench }, { vm_id }) => workbench.machines.snapshot(caller.user_id, vm_id),

  "micro.restore": async ({ caller, workbench, signal }, { snapshot_id }) => ({
    vm_id: await workbench.machines.restore(caller, snapshot_id, signal),
  }),

  "micro.forget": async ({ caller, workbench }, { snapshot_id }) => {
    await workbench.machines.forget(caller.user_id, snapshot_id);
    return { snapshot_id, deleted: true };
  },
};
