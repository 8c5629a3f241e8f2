import type { Handlers } from "../handler.ts";
import { accountHandlers } from "./account.ts";
import { agentHandlers } from "./agent.ts";
import { budgetHandlers } from "./budget.ts";
import { changeHandlers } from "./change.ts";
import { fsHandlers } from "./fs.ts";
import { microHandlers } from "./micro.ts";
import { projectHandlers } from "./project.ts";
import { runHandlers } from "./run.ts";
import { sandboxHandlers } from "./sandbox.ts";
import { terminalHandlers } from "./terminal.ts";
import { usageHandlers } from "./usage.ts";
import { wasmHandlers } from "./wasm.ts";

/** Every method and who does it; one that is missing is a type error. */
export const handlers: Handlers = {
  ...accountHandlers,
  ...agentHandlers,
  ...budgetHandlers,
  ...changeHandlers,
  ...fsHandlers,
  ...microHandlers,
  ...projectHandlers,
  ...runHandlers,
  ...sandboxHandlers,
  ...terminalHandlers,
  ...usageHandlers,
  ...wasmHandlers,
};
