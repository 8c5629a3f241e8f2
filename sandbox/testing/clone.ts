import { type ChildProcess, execFile, spawn } from "node:child_process";
import { chmod, cp, mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { makeTemporary } from "./harness.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** What the sandbox needs to run: the rooms it imports, and their few packages. */
const PARTS = [
  "package.json",
  "sandbox",
  "schemas",
  "platform",
  ...["zod", "prom-client", "tdigest", "bintrees", "@opentelemetry/api"].map(
    (name) => `node_modules/${name}`,
  ),
];
const NOBODY = 65_534;

/** This product's sandbox, and Node, where an ordinary user can read them: a checkout may be locked away. */
export interface ReadableClone extends AsyncDisposable {
  /** Run one of the sandbox's files as that user with a data directory of its own; answers its stdout. */
  run(file: string, timeoutMs?: number): Promise<string>;
  /** The same, with streams, for the caller to end. */
  start(file: string, ...args: string[]): ChildProcess;
}

/** `more`: further files or directories of the checkout. */
export async function makeReadableClone(...more: string[]): Promise<ReadableClone> {
  const dir = await makeTemporary();
  await chmod(dir, 0o755);
  for (const part of [...PARTS, ...more]) await cp(join(ROOT, part), join(dir, part), { recursive: true });
  const node = join(dir, basename(process.execPath));
  await cp(process.execPath, node);
  const home = join(dir, "home");
  await mkdir(home);
  const env = { HOME: home, PATH: "/usr/bin:/bin" };
  const options = { uid: NOBODY, gid: NOBODY, cwd: home, env };
  const command = (file: string) => [join(dir, file), join(home, "data")];
  await promisify(execFile)("chmod", ["-R", "a+rX", dir]);
  await promisify(execFile)("chown", [`${NOBODY}:${NOBODY}`, home]);
  return {
    async run(file, timeoutMs = 60_000) {
      const { stdout } = await promisify(execFile)(node, command(file), {
        ...options,
        timeout: timeoutMs,
        maxBuffer: 1 << 24,
      });
      return stdout;
    },
    start: (file, ...args) =>
      spawn(node, [...command(file), ...args], { ...options, stdio: ["pipe", "pipe", "inherit"] }),
    async [Symbol.asyncDispose]() {
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** The last line of a program's output, as JSON. */
export const lastJson = (output: string) => JSON.parse(output.trimEnd().split("\n").at(-1) ?? "null");
