import type { HandlersOf } from "../handler.ts";

export const sandboxHandlers: HandlersOf<"sandbox."> = {
  "sandbox.status": ({ workbench }) => workbench.status(),
};
