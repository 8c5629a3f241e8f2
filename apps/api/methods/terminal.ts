import { getOwnProject } from "#database/projects/index.ts";
import { connectionOf, type HandlersOf } from "../handler.ts";

export const terminalHandlers: HandlersOf<"terminal."> = {
  "terminal.open": async (context, params) => {
    const { caller, database, workbench, signal } = context;
    const shown = connectionOf(context);
    await getOwnProject(database.db, params.project_id, caller.user_id);
    const session = await workbench.terminals.open(caller, params, shown, signal);
    return { ...session.view(), attached: true };
  },

  "terminal.attach": async (context, { terminal_id }) => {
    const shown = connectionOf(context);
    const session = context.workbench.terminals.find(context.caller.user_id, terminal_id);
    shown.afterAnswer(() => session.attach(shown));
    return { ...session.view(), attached: true };
  },

  "terminal.input": async ({ caller, workbench }, { terminal_id, data }) => {
    workbench.terminals.find(caller.user_id, terminal_id).input(data);
    return { terminal_id };
  },

  "terminal.ack": async ({ caller, workbench }, { terminal_id, seq }) => {
    workbench.terminals.find(caller.user_id, terminal_id).acknowledge(seq);
    return { terminal_id };
  },

  "terminal.resize": async ({ caller, workbench }, { terminal_id, ...size }) => {
    workbench.terminals.find(caller.user_id, terminal_id).resize(size);
    return { terminal_id };
  },

  "terminal.list": async ({ caller, database, workbench }, { project_id }) => {
    if (project_id !== undefined) await getOwnProject(database.db, project_id, caller.user_id);
    const sessions = workbench.terminals.sessions(caller.user_id, project_id);
    return { terminals: sessions.map((session) => session.view()) };
  },

  "terminal.close": async ({ caller, workbench }, { terminal_id }) => {
    await workbench.terminals.end(caller.user_id, terminal_id);
    return { terminal_id, closed: true };
  },
};
