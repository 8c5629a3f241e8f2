/** What looks as if servers had left it, and what only looks so: for tests of those who clear up. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { newInstanceName } from "../instance.ts";
import { orphanSources } from "../janitor/orphans.ts";
import { clearOrphans } from "../janitor/removal.ts";
import { allProcesses, type ProcessInfo, readProcess, signal } from "../process-tree.ts";
import { makeTemporary, silent, until } from "./harness.ts";

const CLEAR_MS = 20_000;
const [namespace, pid, started] = newInstanceName().split("-");

/** Names of server processes: this one, one of its pid that has ended, one of another process namespace. */
export const ALIVE = `${namespace}-${pid}-${started}-1`;
export const DEAD = `${namespace}-${pid}-${Number(started) - 1}-1`;
export const FOREIGN = `1-${pid}-${started}-1`;
/** When this process started. */
export const STARTED = started;

/** For a shell: says that it is there, and stays. */
export const WAIT = "echo ready; exec sleep 1000";
/** Options of bubblewrap for a sandbox that is nobody's in particular. */
export const PLAIN =
  "--unshare-user --unshare-pid --die-with-parent --ro-bind / / --dev /dev --proc /proc".split(" ");

export interface Who {
  cwd?: string;
  uid?: number;
  gid?: number;
  detached?: boolean;
}

/** A directory of servers' directories, and processes of all kinds. */
export class Scene implements AsyncDisposable {
  readonly base: string;
  readonly #children: ChildProcess[] = [];
  readonly #pids: number[] = [];

  private constructor(base: string) {
    this.base = base;
  }

  static async open(): Promise<Scene> {
    const base = join(await makeTemporary(), "a base");
    await mkdir(base);
    return new Scene(base);
  }

  /** What a server does when it starts. */
  clear(): Promise<void> {
    const sources = orphanSources({ base: this.base, own: join(this.base, ALIVE) });
    return clearOrphans(sources, silent, CLEAR_MS);
  }

  /** A program that runs until it is killed and says so on its output, or the pid of what it has started. */
  async start(file: string, args: string[], who: Who = {}): Promise<ProcessInfo> {
    const env = { PATH: "/usr/bin:/bin" };
    const child = spawn(file, args, { stdio: ["ignore", "pipe", "ignore"], env, ...who });
    this.#children.push(child);
    const [line] = await once(child.stdout, "data");
    const last = Number(String(line).trim().split("\n").at(-1));
    const found = readProcess(last > 0 ? last : (child.pid ?? 0));
    if (found === undefined) throw new Error("it has ended");
    this.#pids.push(found.pid);
    return found;
  }

  /** A program in a session whose leader has gone. */
  forsaken(program: string, who: Who = {}): Promise<ProcessInfo> {
    return this.start("setsid", ["sh", "-c", `${program} & echo $!`], who);
  }

  /** A program that sees the passwd file of this instance's directory at /etc/passwd, as in a sandbox. */
  async sandboxOf(instance: string): Promise<ProcessInfo> {
    const passwd = join(this.base, instance, "etc", "passwd");
    await mkdir(join(passwd, ".."), { recursive: true });
    await writeFile(passwd, "");
    await this.start("bwrap", [...PLAIN, "--ro-bind", passwd, "/etc/passwd", "sh", "-c", WAIT]);
    return until(async () => {
      for (const info of allProcesses().values()) {
        if (info.command !== "sleep") continue;
        const mounts = await readFile(`/proc/${info.pid}/mountinfo`, "latin1").catch(() => "");
        if (mounts.includes(`/${instance}/etc/passwd`)) return info;
      }
      return undefined;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    for (const each of this.#pids) signal(each, "SIGKILL");
    await rm(join(this.base, ".."), { recursive: true });
  }
}
