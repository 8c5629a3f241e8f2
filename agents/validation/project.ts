import type { Verdict } from "../agent.ts";
import type { Checks } from "../checks.ts";
import { verdict } from "./verdict.ts";

export async function checkProject(_checks: Checks, _changedPaths: readonly string[]): Promise<Verdict> {
  return verdict([]);
}
