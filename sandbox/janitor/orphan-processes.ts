import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { AppError } from "#schemas";
import { instanceState } from "../instance.ts";
import { FAMILY } from "../limits/cgroup-files.ts";
import { allProcesses, isRunning, type ProcessInfo, signal } from "../process-tree.ts";
import { isSlotUser } from "../runtime.ts";
import type { CleanSource } from "./source.ts";

/** What a server wrote down when its launcher had started. */
export interface LauncherRecord {
  instance: string;
  pid: number;
  started: string;
}

/*
 * Which processes belong to a server that is no more. A stranger must never be killed, so a name, a command line or a
 * user alone prove nothing. What does, in this order:
 *
 * 1. The mount. Every sandbox sees our passwd file at /etc/passwd, and the kernel tells where that came from:
 *    `.../<instance>/etc/passwd`. Nothing inside can mount, so nothing inside can change it.
 * 2. The control group, `/cyberdevstudio/<instance>/...`.
 * 3. The launcher itself: leader of its own session, running our launcher's file with the instance as last argument.
 * 4. The session of a launcher that has died, of which its server wrote down pid and start: what has been half made
 *    (bubblewrap before its mounts) is still in it. While anybody is in a session its number is not used again, but later it may be: so only our own programs,
 *    and only when the leader is gone and they are younger than the launcher.
 * 5. As root, the user: one from the range that no account and no container has, running this machine's bubblewrap or
 *    prlimit, in our process namespace or as the first process of one just below, in a session without a leader.
 *
 * The first that names an instance decides, also when that one is alive or in another process namespace: then the
 * process is left alone.
 */
const INSTANCE = "(\\d+-\\d+-\\d+-\\d+)";
const MOUNT_MARK = new RegExp(` \\S*/${INSTANCE}/etc/passwd(?://deleted)? /etc/passwd `);
const GROUP_MARK = new RegExp(`/${FAMILY}/${INSTANCE}/`);
const PROGRAMS: ReadonlySet<string> = new Set(["bwrap", "prlimit"]);
/** Parts of the path of a launcher, and of what else runs in its session. */
const HELPERS = "/sandbox/launcher/";
const LAUNCHER = `${HELPERS}main.ts`;
/** Whom those are counted to that no instance is known of. */
const UNKNOWN = "unknown";

const END_MS = 10_000;
const POLL_MS = 5;
/** Looked at in one go before others have their turn. */
const BATCH = 16;

interface Look {
  all: ReadonlyMap<number, ProcessInfo>;
  records: readonly LauncherRecord[];
}

function readOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}

function linkOf(pid: number | "self", file: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/${file}`);
  } catch {
    return undefined;
  }
}

/** Numbers of a line of /proc/<pid>/status. */
function statusOf(pid: number, field: string): number[] {
  const line = new RegExp(`^${field}:\\s+(.*)$`, "m").exec(readOf(pid, "status"))?.[1];
  return line?.split(/\s+/).map(Number) ?? [];
}

function isOurs(info: ProcessInfo): boolean {
  return PROGRAMS.has(info.command) || readOf(info.pid, "cmdline").includes(HELPERS);
}

function byLauncher(info: ProcessInfo, { all, records }: Look): string | undefined {
  if (info.session === info.pid) {
    const args = readOf(info.pid, "cmdline").split("\0").slice(0, -1);
    return args.at(-2)?.endsWith(LAUNCHER) ? args.at(-1) : undefined;
  }
  if (all.has(info.session) || !isOurs(info)) return undefined;
  return records.find(({ pid, started }) => pid === info.session && Number(started) <= Number(info.started))
    ?.instance;
}

function isForsaken({ pid, session }: ProcessInfo, { all }: Look): boolean {
  if (process.getuid?.() !== 0 || session === 0 || all.has(session)) return false;
  if (!PROGRAMS.has(basename(linkOf(pid, "exe") ?? ""))) return false;
  if (!isSlotUser(statusOf(pid, "Uid")[0] ?? -1)) return false;
  const numbers = statusOf(pid, "NSpid");
  return linkOf(pid, "ns/pid") === linkOf("self", "ns/pid") || (numbers.length === 2 && numbers[1] === 1);
}

/** The instance a process belongs to, whatever that one's state; undefined for strangers. */
function ownerOf(info: ProcessInfo, look: Look): string | undefined {
  return (
    MOUNT_MARK.exec(readOf(info.pid, "mountinfo"))?.[1] ??
    GROUP_MARK.exec(readOf(info.pid, "cgroup"))?.[1] ??
    byLauncher(info, look) ??
    (isForsaken(info, look) ? UNKNOWN : undefined)
  );
}

/** Living processes of servers that are no more, by instance. */
export async function orphanProcesses(
  records: readonly LauncherRecord[],
): Promise<Map<string, ProcessInfo[]>> {
  const living = [...allProcesses()].filter(([, { state }]) => state !== "Z" && state !== "X");
  const look: Look = { all: new Map(living), records };
  const found = new Map<string, ProcessInfo[]>();
  for (const [index, [pid, info]] of living.entries()) {
    if (index % BATCH === BATCH - 1) await setImmediate();
    const owner = pid === process.pid ? undefined : ownerOf(info, look);
    if (owner === undefined || (owner !== UNKNOWN && instanceState(owner) !== "dead")) continue;
    found.set(owner, [...(found.get(owner) ?? []), info]);
  }
  return found;
}

/** Until a look finds none; answers whether there were any. */
async function endAll(
  instance: string,
  records: () => Promise<LauncherRecord[]>,
  endMs: number,
): Promise<boolean> {
  const deadline = Date.now() + endMs;
  for (let some = false; ; some = true) {
    const left = (await orphanProcesses(await records())).get(instance) ?? [];
    if (left.length === 0) return some;
    // Looked at once more: a number may have gone to somebody else since the list was made.
    for (const info of left) if (isRunning(info)) signal(info.pid, "SIGKILL");
    while (left.some(isRunning)) {
      if (Date.now() > deadline) {
        const pids = left.filter(isRunning).map(({ pid }) => pid);
        throw new AppError("Timeout", `Processes ${pids.join(", ")} of ${instance} do not end.`, {
          hint: "They may hang in the kernel; they are tried again at the next clean-up.",
        });
      }
      await sleep(POLL_MS);
    }
  }
}

/** Processes of servers that are no more; one candidate per server. What has not ended after `endMs` is a failure. */
export function processSource(records: () => Promise<LauncherRecord[]>, endMs: number = END_MS): CleanSource {
  return {
    name: "processes",
    async list() {
      const found = await orphanProcesses(await records());
      return [...found.keys()].map((instance) => ({
        id: instance,
        idleSince: null,
        remove: async () =>
          (await endAll(instance, records, endMs)) ? ("removed" as const) : ("gone" as const),
      }));
    },
  };
}
