import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { CheckRun, Checks, ProposedChange, Tree } from "#agents";

/** Files of a project by path. */
export type Files = Readonly<Record<string, string | Uint8Array>>;

const OUTPUT_CHARS = 32 * 1024;
const TIMEOUT_MS = 60_000;
const MAX_READ_BYTES = 8 * 1024 * 1024;

/** A project in a temporary directory, its commands run by this machine's shell: for validators' own tests. */
export class DirectoryTree implements Tree, Disposable {
  /** Commands that were run, in order. */
  readonly commands: string[] = [];
  readonly #files: ReadonlyMap<string, Uint8Array>;
  #directory: string | undefined;

  constructor(files: Files) {
    const entries = Object.entries(files).map(([path, content]) => [path, bytesOf(content)] as const);
    this.#files = new Map(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }

  async list(): Promise<readonly string[]> {
    return [...this.#files.keys()];
  }

  async read(path: string): Promise<Uint8Array | null> {
    const content = this.#files.get(path);
    return content === undefined || content.byteLength > MAX_READ_BYTES ? null : content;
  }

  async run(
    command: string,
    { timeoutMs = TIMEOUT_MS }: { readonly timeoutMs?: number } = {},
  ): Promise<CheckRun> {
    this.commands.push(command);
    this.#directory ??= this.#make();
    return await runShell(command, this.#directory, timeoutMs);
  }

  [Symbol.dispose](): void {
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true, force: true });
  }

  #make(): string {
    const directory = mkdtempSync(join(tmpdir(), "cds-test-tree-"));
    for (const [path, content] of this.#files) {
      mkdirSync(dirname(join(directory, path)), { recursive: true });
      writeFileSync(join(directory, path), content, { mode: 0o755 });
    }
    return directory;
  }
}

/** A change of a project and the trees to judge it by: what `after` does not name stays as it was; null deletes. */
export class TestChange implements Checks, Disposable {
  readonly before: DirectoryTree;
  readonly after: DirectoryTree;
  readonly change: ProposedChange;
  readonly #before: Files;
  readonly #after: Readonly<Record<string, string | Uint8Array | null>>;
  readonly #overlays: DirectoryTree[] = [];

  constructor(
    before: Files,
    after: Readonly<Record<string, string | Uint8Array | null>> = {},
    answer = "Done.",
  ) {
    this.#before = before;
    this.#after = after;
    this.before = new DirectoryTree(before);
    this.after = new DirectoryTree(laidOver(before, after));
    const files = Object.entries(after).map(([path, content]) => ({
      path,
      before: path in before ? bytesOf(before[path] ?? "") : null,
      after: content === null ? null : bytesOf(content),
    }));
    this.change = { files, answer };
  }

  overlay(paths: readonly string[]): Tree {
    const chosen = Object.entries(this.#after).filter(([path]) => paths.includes(path));
    const tree = new DirectoryTree(laidOver(this.#before, Object.fromEntries(chosen)));
    this.#overlays.push(tree);
    return tree;
  }

  [Symbol.dispose](): void {
    for (const tree of [this.before, this.after, ...this.#overlays]) tree[Symbol.dispose]();
  }
}

function laidOver(
  before: Files,
  after: Readonly<Record<string, string | Uint8Array | null>>,
): Record<string, string | Uint8Array> {
  const all = Object.entries({ ...before, ...after });
  return Object.fromEntries(all.filter((entry): entry is [string, string | Uint8Array] => entry[1] !== null));
}

function bytesOf(content: string | Uint8Array): Uint8Array {
  return typeof content === "string" ? new TextEncoder().encode(content) : content;
}

/** As in a sandbox: this Node first on PATH, next to nothing else in the environment; the whole group ends with it. */
function runShell(command: string, cwd: string, timeoutMs: number): Promise<CheckRun> {
  const env = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin`, HOME: cwd, CI: "1" };
  const child = spawn("sh", ["-c", `exec 2>&1\n${command}`], {
    cwd,
    env,
    detached: true,
    stdio: ["ignore", "pipe", "ignore"],
  });
  let output = "";
  let timedOut = false;
  child.stdout.setEncoding("utf8");
  child.stdout.on("data", (text: string) => {
    output = (output + text).slice(-OUTPUT_CHARS);
  });
  const endGroup = () => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // It has ended already.
    }
  };
  const timer = setTimeout(() => {
    timedOut = true;
    endGroup();
  }, timeoutMs);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", endGroup);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code, output, timedOut });
    });
  });
}
