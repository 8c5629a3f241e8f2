import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { close, ignoring, openRoot } from "../engines/fs/descriptors.ts";
import { removeTree } from "../engines/fs/remove.ts";
import { instanceState } from "../instance.ts";
import type { CleanSource } from "./source.ts";

const REMOVE_MS = 60_000;
/** With a word between where an engine has its own: `cds-micro-<instance>`. */
const OWN = /^cds-(?:[a-z]+-)?(\d+-\d+-\d+-\d+)(?:[-.].*)?$/;

/** Start of the name of whatever is made in a directory shared with others, so that it is known whose it was. */
export const sharedName = (instance: string) => `cds-${instance}`;

/** Remove `name` in `directory`, whatever it is; answers whether it was there. */
export async function removeIn(directory: string, name: string, timeoutMs = REMOVE_MS): Promise<boolean> {
  const root = await openRoot(directory).catch(ignoring("ENOENT"));
  if (root === undefined) return false;
  try {
    return await removeTree(root, name, timeoutMs);
  } finally {
    await close(root);
  }
}

/**
 * Files and directories that servers made in shared directories under their `sharedName`, and that are no more. Anybody
 * may make such a name in /tmp, so only what is our own user's counts.
 */
export function fileSource(name: string, directories: readonly string[]): CleanSource {
  return {
    name,
    async list() {
      const found = await Promise.all(
        directories.map(async (directory) =>
          (await readdir(directory).catch(() => [])).map((entry) => ({ directory, entry })),
        ),
      );
      const orphans = found
        .flat()
        .filter(({ entry }) => instanceState(OWN.exec(entry)?.[1] ?? "") === "dead");
      const ours = await Promise.all(
        orphans.map(async (orphan) => {
          const facts = await lstat(join(orphan.directory, orphan.entry)).catch(() => undefined);
          return facts?.uid === process.getuid?.()
            ? [{ ...orphan, bytes: facts?.isFile() ? facts.size : 0 }]
            : [];
        }),
      );
      return ours.flat().map(({ directory, entry, bytes }) => ({
        id: join(directory, entry),
        path: join(directory, entry),
        bytes,
        idleSince: null,
        remove: async () => ((await removeIn(directory, entry)) ? ("removed" as const) : ("gone" as const)),
      }));
    },
  };
}
