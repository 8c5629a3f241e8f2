import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { AppError } from "#schemas";

/**
 * The opencode executable: the configured one, else that of the pinned package for this machine (for
 * processors without AVX2 its baseline build). The package's own launcher script is not used: it needs an
 * install script to have run. @throws AppError EngineUnavailable when there is none.
 */
export function locateOpencode(configured: string | undefined): string {
  if (configured !== undefined) {
    if (existsSync(configured)) return configured;
    throw unavailable(
      `OPENCODE_BIN names ${configured}, which does not exist.`,
      "Mend or unset OPENCODE_BIN.",
    );
  }
  const require = createRequire(import.meta.url);
  for (const name of packageNames()) {
    try {
      return join(dirname(require.resolve(`${name}/package.json`)), "bin", "opencode");
    } catch {
      // Not installed: the next one may be.
    }
  }
  throw unavailable(
    `opencode is not installed for ${process.platform}-${process.arch}.`,
    "Run scripts/bootstrap.sh again, or set OPENCODE_BIN.",
  );
}

function packageNames(): string[] {
  const name = `opencode-${process.platform}-${process.arch}`;
  return process.arch === "x64" && !hasAvx2() ? [`${name}-baseline`, name] : [name, `${name}-baseline`];
}

function hasAvx2(): boolean {
  try {
    return /\bavx2\b/.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return true;
  }
}

function unavailable(message: string, hint: string): AppError {
  return new AppError("EngineUnavailable", message, { hint });
}
