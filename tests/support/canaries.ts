import { chmod, lstat, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Slot } from "#sandbox";
import { type Outcome, openForTest, runNode, type TestSandboxes } from "#sandbox/testing/harness.ts";

export const SECRET = "the canary's secret";

/** Files of the host that no attack may read, change or remove, with everything that can be told of them. */
export interface Canaries extends AsyncDisposable {
  /** Holds `secret`, `program`, `dir/secret`, `empty/` and `link`. */
  readonly dir: string;
  /** Name -> all that is known of it: content, kind, mode, owner, size, names, times. */
  look(): Promise<Record<string, string>>;
}

async function lookAt(dir: string): Promise<Record<string, string>> {
  const seen: Record<string, string> = {};
  const names = ["", ...(await readdir(dir, { recursive: true })).sort()];
  for (const name of names) {
    const path = join(dir, name);
    const { mode, uid, gid, size, nlink, ino, mtimeMs, ctimeMs } = await lstat(path);
    const content = (mode & 0o170000) === 0o100000 ? await readFile(path, "utf8") : "";
    seen[name] = [mode.toString(8), uid, gid, size, nlink, ino, mtimeMs, ctimeMs, content].join(" ");
  }
  return seen;
}

/** In a directory that every user may enter and write to, so that nothing but the sandbox keeps an attacker out. */
export async function plantCanaries(): Promise<Canaries> {
  const dir = await mkdtemp(join(tmpdir(), "cds-canary-"));
  await mkdir(join(dir, "dir"));
  await mkdir(join(dir, "empty"));
  await writeFile(join(dir, "secret"), SECRET);
  await writeFile(join(dir, "dir/secret"), SECRET);
  await writeFile(join(dir, "program"), "#!/bin/sh\n");
  await symlink("secret", join(dir, "link"));
  await chmod(join(dir, "program"), 0o755);
  for (const name of ["secret", "dir/secret"]) await chmod(join(dir, name), 0o666);
  for (const name of ["", "dir", "empty"]) await chmod(join(dir, name), 0o777);
  return {
    dir,
    look: () => lookAt(dir),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}

/** A directory of the host that hostile programs have as /work. */
export interface HostileDirectory extends AsyncDisposable {
  readonly opened: TestSandboxes;
  readonly slot: Slot;
  /** As the host sees it. */
  readonly work: string;
  /** Run a CommonJS script there to its end, with `given` as the environment. */
  inside(script: string, given?: Record<string, string>): Promise<Outcome>;
}

export async function openHostileDirectory(): Promise<HostileDirectory> {
  const opened = await openForTest();
  const slot = await opened.sandboxes.slots.acquire();
  const work = await slot.makeDir("work");
  const limits = {
    memoryBytes: 512 * 1024 * 1024,
    processes: 64,
    fileBytes: 2 ** 41,
    tmpBytes: 16 * 1024 * 1024,
  };
  const mounts = [{ source: work, target: "/work", mode: "rw" as const }];
  return {
    opened,
    slot,
    work,
    async inside(script, given = {}) {
      const outcome = await runNode(opened.sandboxes, script, {
        slot,
        mounts,
        limits,
        cwd: "/work",
        env: given,
      });
      if (outcome.code !== 0) throw new Error(`the attack itself failed: ${JSON.stringify(outcome)}`);
      return outcome;
    },
    async [Symbol.asyncDispose]() {
      await slot.release();
      await opened[Symbol.asyncDispose]();
    },
  };
}
