import type { Config } from "#platform/config/config.ts";
import type { SandboxLimits } from "#sandbox";

const MIB = 1024 * 1024;
const TMP_BYTES = 128 * MIB;
/** The largest file a program may make: a build's or an installed package's, not one a project may store. */
const FILE_BYTES = 256 * MIB;

/** What a program on a project's files may use, whoever began it: a person, an agent's tool, a trial of a result. */
export function programLimits({ run, workbench }: Pick<Config, "run" | "workbench">): SandboxLimits {
  return {
    memoryBytes: run.memoryBytes,
    processes: workbench.processes,
    fileBytes: FILE_BYTES,
    tmpBytes: TMP_BYTES,
    ...(workbench.cpus > 0 ? { cpus: workbench.cpus } : {}),
  };
}
