/** The JSON-RPC surface as a table of contents: one file per group, one entry per method. */
import type { z } from "zod";
import { accountMethods } from "./account.ts";
import { agentMethods } from "./agent.ts";
import { budgetMethods } from "./budget.ts";
import { changeMethods } from "./change.ts";
import { microMethods } from "./micro.ts";
import { fsMethods, projectMethods } from "./project.ts";
import { runMethods } from "./run.ts";
import { sandboxMethods } from "./sandbox.ts";
import { terminalMethods } from "./terminal.ts";
import { usageMethods } from "./usage.ts";
import { wasmMethods } from "./wasm.ts";

export const methods = {
  ...accountMethods,
  ...agentMethods,
  ...budgetMethods,
  ...changeMethods,
  ...fsMethods,
  ...microMethods,
  ...projectMethods,
  ...runMethods,
  ...sandboxMethods,
  ...terminalMethods,
  ...usageMethods,
  ...wasmMethods,
} as const;

export type Methods = typeof methods;
export type MethodName = keyof Methods;
/** What a caller sends (before defaults). */
export type MethodInput<M extends MethodName> = z.input<Methods[M]["params"]>;
/** What a handler receives (after defaults). */
export type MethodParams<M extends MethodName> = z.output<Methods[M]["params"]>;
export type MethodResult<M extends MethodName> = z.output<Methods[M]["result"]>;
