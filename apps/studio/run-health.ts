import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { locateOpencode } from "#apps/orchestrator/opencode/binary.ts";
import type { HealthRegistry } from "#platform";
import { AppError, toAppError } from "#schemas";
import type { Shared } from "./servers.ts";

type Needed = Pick<Shared, "config" | "database" | "sandboxes">;

/** What an agent run needs (OB-5 in small): the database, a sandbox, the OpenCode executable. */
export function addRunChecks(health: HealthRegistry, { config, database, sandboxes }: Needed): void {
  health.add("database", async () => {
    await database.ping();
    return undefined;
  });
  health.add("sandbox", async () => {
    const { available, tier, reasons, hint } = await sandboxes.probe();
    if (!available) throw new AppError("EngineUnavailable", [...reasons, hint ?? ""].join(" ").trim());
    return `limits by ${tier}`;
  });
  health.add("opencode", async () => {
    locateOpencode(config.run.opencodeBin);
    // Anybody may ask: no path of the server is told.
    return config.run.opencodeBin === undefined ? "the pinned version" : "the configured one";
  });
}

/** What a person should know at the start, one line each; empty when all is well. */
export async function problemsOf({
  config,
  sandboxes,
}: Pick<Shared, "config" | "sandboxes">): Promise<string[]> {
  const problems: string[] = [];
  const probe = await sandboxes.probe();
  if (!probe.available)
    problems.push(`no agent can run: ${[...probe.reasons, probe.hint ?? ""].join(" ").trim()}`);
  try {
    locateOpencode(config.run.opencodeBin);
  } catch (error) {
    const { message, details } = toAppError(error);
    problems.push(`no agent can run: ${message} ${details.hint ?? ""}`.trim());
  }
  return problems;
}

/** What an executable says of its version; undefined when it cannot be run. */
export async function versionOf(
  command: string,
  args: readonly string[] = ["--version"],
): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(command, [...args], { timeout: 20_000 });
    return stdout.trim().split("\n")[0];
  } catch {
    return undefined;
  }
}
