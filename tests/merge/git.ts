import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import type { Tree } from "./trees.ts";

/** What the person's own configuration says must not matter. */
const SETTINGS = [
  "user.name=test",
  "user.email=test@localhost",
  "commit.gpgsign=false",
  "core.autocrlf=false",
  "core.attributesFile=/dev/null",
  "core.hooksPath=/dev/null",
  "gc.auto=0",
  // A new file follows its directory here; by default git stops to ask whether it may.
  "merge.directoryRenames=true",
].flatMap((setting) => ["-c", setting]);
const GIT_TIMEOUT_MS = 60_000;

/** git on trees of a test: a repository of its own in a temporary directory. */
export class Git implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "cds-merge-"));
  #count = 0;

  constructor() {
    this.#run(["init", "-q", "."]);
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** `git merge` of two trees with a common base. Null: it ended with conflicts. */
  merge(base: Tree, ours: Tree, theirs: Tree): Tree | null {
    this.#count += 1;
    const name = `refs/heads/pair-${this.#count}`;
    const commits = [commit(`${name}/base`, base), commit(`${name}/ours`, ours, `${name}/base`)];
    commits.push(commit(`${name}/theirs`, theirs, `${name}/base`));
    this.#run(["fast-import", "--quiet"], Buffer.concat(commits));
    const work = join(this.#directory, `work-${this.#count}`);
    mkdirSync(work);
    const place = ["--git-dir", join(this.#directory, ".git"), "--work-tree", work];
    this.#run([...place, "checkout", "-q", "-f", "--detach", `${name}/ours`]);
    const clean =
      this.#run([...place, "merge", "-q", "--no-edit", `${name}/theirs`], undefined, [0, 1]) === 0;
    const result = clean ? readTree(work) : null;
    rmSync(work, { recursive: true, force: true });
    return result;
  }

  #run(args: readonly string[], input?: Buffer, allowed: readonly number[] = [0]): number {
    const { status, stderr, error } = spawnSync("git", [...SETTINGS, ...args], {
      cwd: this.#directory,
      env: {
        PATH: process.env.PATH,
        HOME: this.#directory,
        GIT_CONFIG_NOSYSTEM: "1",
        GIT_CONFIG_GLOBAL: "/dev/null",
        GIT_INDEX_FILE: join(this.#directory, `index-${this.#count}`),
      },
      timeout: GIT_TIMEOUT_MS,
      ...(input === undefined ? {} : { input }),
    });
    if (status === null || !allowed.includes(status)) {
      throw new Error(`git ${args.join(" ")} failed: ${stderr}`, { cause: error });
    }
    return status;
  }
}

/** A commit of a whole tree for `git fast-import`. */
function commit(ref: string, tree: Tree, from?: string): Buffer {
  const parts = [`commit ${ref}\n`, "committer test <test@localhost> 0 +0000\n", "data 4\ntest\n"];
  if (from !== undefined) parts.push(`from ${from}\n`);
  parts.push("deleteall\n");
  const chunks: Buffer[] = [Buffer.from(parts.join(""))];
  for (const [path, { content, executable }] of tree) {
    const mode = executable ? "100755" : "100644";
    chunks.push(Buffer.from(`M ${mode} inline ${JSON.stringify(path)}\ndata ${content.length}\n`), content);
    chunks.push(Buffer.from("\n"));
  }
  return Buffer.concat(chunks);
}

function readTree(work: string): Tree {
  const tree = new Map<string, { content: Buffer; executable: boolean }>();
  for (const entry of readdirSync(work, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const file = { content: readFileSync(path), executable: (statSync(path).mode & 0o100) !== 0 };
    tree.set(relative(work, path).split("\\").join("/"), file);
  }
  return tree;
}
