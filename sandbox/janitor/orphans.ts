import { tmpdir } from "node:os";
import { directorySource, Homes } from "./orphan-directories.ts";
import { fileSource } from "./orphan-files.ts";
import { groupSource } from "./orphan-groups.ts";
import { mountSource } from "./orphan-mounts.ts";
import { processSource } from "./orphan-processes.ts";
import type { CleanSource } from "./source.ts";

/** Directories shared with others in which servers make sockets and machines' memory. */
const SHARED = [tmpdir(), "/dev/shm"];

/**
 * Everything a server that was killed can leave behind, in the order it has to go: processes before what they use,
 * directories last, as they hold what the others are known by. `base` holds the directories of servers, `own` is ours.
 */
export function orphanSources({ base, own }: { base: string; own: string }): CleanSource[] {
  const homes = new Homes(base, own);
  return [
    groupSource,
    processSource(homes.launchers),
    mountSource(homes.deadPaths),
    fileSource("files", SHARED),
    directorySource(homes),
  ];
}
