import { readdirSync, readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** Command lines of every process on this machine whose command line or environment contains `needle`. */
export function processesNaming(needle: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid) continue;
    const command = readProc(pid, "cmdline").replaceAll("\0", " ").trim();
    if (`${command}\n${readProc(pid, "environ")}`.includes(needle)) found.push(`${pid} ${command}`);
  }
  return found;
}

function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}

/**
 * Processes of the sandboxes of the studio with this data directory: what runs in one sees a piece of it
 * mounted. Other studios on the machine do not count.
 */
export function sandboxedProcesses(dataDir: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => readProc(pid, "mountinfo").includes(dataDir))
    .map((pid) => `${pid} ${readProc(pid, "cmdline").replaceAll("\0", " ").trim().slice(0, 100)}`);
}

/** Every regular file below `dir` whose bytes contain `needle`. Files that vanish meanwhile are passed over. */
export async function filesNaming(dir: string, needle: string): Promise<string[]> {
  const wanted = Buffer.from(needle);
  const found: string[] = [];
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries.filter((each) => each.isFile())) {
    const path = join(entry.parentPath, entry.name);
    try {
      if (readFileSync(path).includes(wanted)) found.push(path);
    } catch {
      // gone or not readable: nothing of it can leak any more
    }
  }
  return found;
}
