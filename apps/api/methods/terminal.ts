import { getOwnProject } from "#database/projects/index.ts";
import { AppError } from "#schemas";
import type { Connection, HandlersOf } from "../handler.ts";

export const terminalHandlers: HandlersOf<"terminal."> = {
  "terminal.open": async ({ caller, database, workbench, signal, connection }, params) => {
    const shown = needed(connection);
    await getOwnProject(database.db, params.project_id, caller.user_id);
    const session = await workbench.terminals.open(caller, params, shown, signal);
    return { ...session.view(), attached: true };
  },

  "terminal.attach": async ({ caller, workbench, connection }, { terminal_id }) => {
    const shown = needed(connection);
    const session = workbench.terminals.find(caller.user_id, terminal_id);
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

function needed(connection: Connection | undefined): Connection {
  if (connection !== undefined) return connection;
  throw new AppError("InvalidRequest", "A terminal is shown over WebSocket only.", {
    hint: "Connect to /ws.",
  });
}
