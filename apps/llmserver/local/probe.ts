import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { AppError } from "#schemas";

const PROGRAM = fileURLToPath(new URL("./engine/probe.ts", import.meta.url));
const TIMEOUT_MS = 30_000;

export interface EngineProbe {
  cores: number;
  /** `cuda`, `vulkan` or `metal`, when a model could be loaded onto one. */
  gpu?: string;
}

/**
 * Whether local models can run here, found out by loading the library in a process of its own.
 * @throws AppError EngineUnavailable.
 */
export async function probeEngine(): Promise<EngineProbe> {
  try {
    // Its environment is empty, as the engine's is.
    const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM], {
      env: {},
      timeout: TIMEOUT_MS,
    });
    return JSON.parse(stdout) as EngineProbe;
  } catch (error) {
    throw new AppError(
      "EngineUnavailable",
      "The library for local models does not load on this machine.",
      {
        hint: "It needs Linux with glibc on x86_64 or arm64, or macOS on arm64. Everything else works without it.",
      },
      error,
    );
  }
}
