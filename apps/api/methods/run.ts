import { getOwnProject } from "#database/projects/index.ts";
import { connectionOf, type HandlersOf } from "../handler.ts";

export const runHandlers: HandlersOf<"run."> = {
  "run.exec": async ({ caller, database, workbench, signal }, params) => {
    await getOwnProject(database.db, params.project_id, caller.user_id);
    return workbench.programs.run(caller, params, signal);
  },

  "run.stream": async (context, { tag, ...params }) => {
    const { caller, database, workbench, signal } = context;
    const connection = connectionOf(context);
    await getOwnProject(database.db, params.project_id, caller.user_id);
    return workbench.programs.run(caller, params, signal, {
      started: (process_id) =>
        void connection.notify("run.started", { process_id, ...(tag === undefined ? {} : { tag }) }),
      output: (stream, data, seq, process_id) =>
        connection.notify("run.output", { process_id, seq, stream, data }),
    });
  },

  "run.kill": async ({ caller, workbench }, params) => {
    const { process_id, pid, signal } = params;
    if (!process_id.startsWith("trm_")) await workbench.programs.kill(caller.user_id, params);
    else if (pid === undefined && (signal === undefined || signal === "SIGKILL"))
      await workbench.terminals.end(caller.user_id, process_id);
    else await workbench.terminals.signal(caller.user_id, process_id, signal ?? "SIGTERM", pid);
    return { process_id, killed: true };
  },

  "run.list": async ({ caller, database, workbench }, { project_id }) => {
    if (project_id !== undefined) await getOwnProject(database.db, project_id, caller.user_id);
    const lists = await Promise.all([
      workbench.programs.list(caller.user_id, project_id),
      workbench.terminals.list(caller.user_id, project_id),
    ]);
    const processes = lists.flat();
    return {
      processes: processes.sort((one, other) => one.started_at.localeCompare(other.started_at)),
    };
  },
};
