import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { instanceState } from "../../instance.ts";
import type { SandboxLog } from "../../types.ts";

/** Directories with templates' memory are called this and the name of the server process they belong to. */
export const RAM_PREFIX = "cds-micro-";
export const SHARED_MEMORY = "/dev/shm";
/** Made in another process namespace, so nobody here knows whether its server lives. */
const FOREIGN_AGE_MS = 24 * 3_600_000;

/**
 * Remove what dead servers left of their virtual machines: templates in shared memory and in the engine's directory
 * `dir`. The machines themselves die with their server (launcher), their slots' directories with its runtime.
 * Answers how many were removed; never throws.
 */
export async function reconcileMicro(dir: string, log: SandboxLog): Promise<number> {
  let removed = 0;
  for (const home of new Set([SHARED_MEMORY, dir])) {
    const names = await readdir(home).catch(() => []);
    for (const name of names.filter((each) => each.startsWith(RAM_PREFIX))) {
      const path = join(home, name);
      try {
        const found = await stat(path);
        // In shared memory others can make what they like; what is theirs is not ours to remove.
        if (found.uid !== process.getuid?.()) continue;
        const state = instanceState(name.slice(RAM_PREFIX.length));
        const old = Date.now() - found.mtimeMs > FOREIGN_AGE_MS;
        if (state !== "dead" && !(state === "foreign" && old)) continue;
        await rm(path, { recursive: true, force: true });
        removed += 1;
        log.info({ directory: path }, "removed what an earlier server left of its virtual machines");
      } catch (error) {
        // Another server may be removing the same.
        log.debug({ err: error, directory: path }, "could not remove what an earlier server left");
      }
    }
  }
  return removed;
}
