import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { findProgram } from "../host.ts";

const TRIAL_MS = 5000;

/** A command that starts another in a scope of its own, whose control group is ours to divide. */
export interface ScopeCommand {
  argv: string[];
  env: Record<string, string>;
}

/**
 * How an ordinary user gets a delegated control group: a transient scope of their own systemd.
 * Undefined where systemd-run, the user's manager or the permission is missing.
 */
export async function findScopeCommand(): Promise<ScopeCommand | undefined> {
  const program = findProgram("systemd-run");
  const uid = process.getuid?.();
  if (program === undefined || uid === undefined || uid === 0) return undefined;
  const runtime = `/run/user/${uid}`;
  if (!existsSync(`${runtime}/systemd/private`)) return undefined;
  const command = {
    argv: [program, "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--"],
    env: { XDG_RUNTIME_DIR: runtime, DBUS_SESSION_BUS_ADDRESS: `unix:path=${runtime}/bus` },
  };
  try {
    const [file = "", ...args] = command.argv;
    await promisify(execFile)(file, [...args, "true"], { env: command.env, timeout: TRIAL_MS });
    return command;
  } catch {
    return undefined;
  }
}
