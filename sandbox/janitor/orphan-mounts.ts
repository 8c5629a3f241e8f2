import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import type { CleanSource } from "./source.ts";

/** Fixed, as all that runs with our rights; every Linux has it there. */
const UMOUNT = "/bin/umount";
const UMOUNT_MS = 10_000;

/** What this process sees mounted strictly below one of these directories, the innermost first. */
export async function mountsBelow(directories: readonly string[]): Promise<string[]> {
  const lines = (await readFile("/proc/self/mountinfo", "latin1")).split("\n");
  const points = lines.flatMap((line) => line.split(" ")[4]?.replace(/\\([0-7]{3})/g, plain) ?? []);
  const paths = points.map((point) => Buffer.from(point, "latin1").toString("utf8"));
  return paths.filter((path) => directories.some((directory) => path.startsWith(`${directory}/`))).reverse();
}

/** The kernel writes blanks and the like as three octal digits. */
const plain = (_: string, digits: string) => String.fromCharCode(Number.parseInt(digits, 8));

/**
 * Mounts in directories of servers that are no more. Sandboxes mount in namespaces of their own, which go with them;
 * so there should be none, but removing a directory with one in it would empty what is mounted there.
 */
export function mountSource(dead: () => Promise<string[]>): CleanSource {
  return {
    name: "mounts",
    async list() {
      const points = await mountsBelow(await dead());
      return points.map((path, index) => ({
        // One place may have several mounts, one over the other.
        id: `${path} ${index}`,
        idleSince: null,
        async remove() {
          await promisify(execFile)(UMOUNT, ["--no-canonicalize", "--lazy", path], { timeout: UMOUNT_MS });
          return "removed";
        },
      }));
    },
  };
}
