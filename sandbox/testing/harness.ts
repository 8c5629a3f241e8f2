import { existsSync } from "node:fs";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { openSandboxes, type Sandboxes, type SandboxesOptions } from "../sandboxes.ts";
import type { Slot } from "../slots.ts";
import type { SandboxExit, SandboxLimits, SandboxLog, SandboxSpec } from "../types.ts";

const MIB = 1024 * 1024;

export const LIMITS: SandboxLimits = {
  memoryBytes: 256 * MIB,
  processes: 64,
  fileBytes: 16 * MIB,
  tmpBytes: 16 * MIB,
};

/** Where `runNode` puts the Node that runs the tests. */
export const NODE = "/opt/node/node";

const nothing = () => undefined;
export const silent = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
} as unknown as SandboxLog;

export interface TestSandboxes extends AsyncDisposable {
  sandboxes: Sandboxes;
  dataDir: string;
}

/** A new directory below `preferred`, or else the system's for such, which other users may pass through. */
export async function makeTemporary(preferred = tmpdir()): Promise<string> {
  const path = await mkdtemp(join(existsSync(preferred) ? preferred : tmpdir(), "cds-test-"));
  await chmod(path, 0o711);
  return path;
}

export async function openForTest(options: Partial<SandboxesOptions> = {}): Promise<TestSandboxes> {
  const dataDir = options.dataDir ?? (await makeTemporary());
  const sandboxes = await openSandboxes({ log: silent, ...options, dataDir });
  const close = async () => {
    await sandboxes.close();
    if (options.dataDir === undefined) await rm(dataDir, { recursive: true, force: true });
  };
  return { sandboxes, dataDir, [Symbol.asyncDispose]: close };
}

export async function text(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

/** A spec with everything but the program. */
export function specFor(slot: Slot, argv: readonly string[], more: Partial<SandboxSpec> = {}): SandboxSpec {
  return { name: "test", argv, env: {}, cwd: "/", mounts: [], limits: LIMITS, slot, ...more };
}

export interface Outcome extends SandboxExit {
  stdout: string;
  stderr: string;
}

/** Run a program in a slot of its own to its end. */
export async function run(
  sandboxes: Sandboxes,
  argv: readonly string[],
  more: Partial<SandboxSpec> = {},
): Promise<Outcome> {
  const slot = more.slot ?? (await sandboxes.slots.acquire());
  try {
    const process = await sandboxes.start(specFor(slot, argv, more));
    process.stdin.end();
    const [stdout, stderr, exit] = await Promise.all([
      text(process.stdout),
      text(process.stderr),
      process.exited,
    ]);
    return { ...exit, stdout, stderr };
  } finally {
    if (more.slot === undefined) await slot.release();
  }
}

export const shell = (sandboxes: Sandboxes, script: string, more?: Partial<SandboxSpec>) =>
  run(sandboxes, ["/bin/sh", "-c", script], more);

/** Run a CommonJS script with the Node that runs the tests. */
export async function runNode(sandboxes: Sandboxes, script: string, more: Partial<SandboxSpec> = {}) {
  const mounts = [...(more.mounts ?? []), { source: process.execPath, target: NODE, mode: "ro" as const }];
  return run(sandboxes, [NODE, "--input-type=commonjs", "-e", script], { ...more, mounts });
}

/** Wait until `ready` answers something, for 30 s at most. */
export async function until<T>(
  ready: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const value = await ready();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadline) throw new Error("waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
