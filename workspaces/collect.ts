import { createHash } from "node:crypto";
import { normalizePath, showPath } from "#database/projects/paths.ts";
import type { TreeFile } from "#database/projects/types.ts";
import type { Jail, WalkEntry, WalkResult } from "#sandbox";
import { AppError } from "#schemas";
import { IgnoreRules, isAgentConfiguration, isNeverKept, isRulesFile } from "./ignored.ts";
import type { Snapshot } from "./workspace.ts";

const MAX_DEPTH = 64;
/** Directories count as entries too, and ignored files below ordinary names. */
const ENTRIES_PER_FILE = 4;
/** More than this of new content is no change anybody reviews. */
const MAX_CHANGE_BYTES = 64 * 1024 * 1024;
const MAX_RULES_BYTES = 256 * 1024;
const MAX_WARNINGS = 20;

export interface CollectLimits {
  readonly fileBytes: number;
  readonly projectFiles: number;
}

/** A working directory and what is known of it. */
export interface CollectSource {
  /** The project's files that were put into it. */
  readonly base: ReadonlyMap<string, TreeFile>;
  /** How they looked then. */
  readonly snapshot: ReadonlyMap<string, Snapshot>;
  /** Paths of the project that were not put into it. */
  readonly withheld: readonly string[];
  /** The project's own .gitignore files. */
  readonly rules: IgnoreRules;
  /** Whether configuration of agents' programs counts as a result: never an agent's own. */
  readonly keepsAgentConfiguration: boolean;
  /** The directory that holds `work`. */
  openJail(): Promise<Jail>;
}

/** One path the agent changed. */
export interface ChangedFile {
  readonly path: string;
  /** What stood there; null: nothing. */
  readonly base: TreeFile | null;
  /** What stands there now; null: nothing. */
  readonly content: Buffer | null;
  readonly executable: boolean;
  /** How the file looked when it was read; null: there is none. */
  readonly seen: Snapshot | null;
}

export interface Collected {
  /** By path. */
  readonly files: ChangedFile[];
  /** What was left out and why, safe to show. */
  readonly warnings: string[];
  /** Touched, and found to have the content they started with. */
  readonly unchanged: { readonly path: string; readonly seen: Snapshot }[];
  /** Whether it wrote configuration that an agent's program could load later. */
  readonly agentConfiguration: boolean;
}

/**
 * What the agent made of its working directory. Links, FIFOs, devices and hard links are never read; ignored and
 * oversized new files are left out with a word. @throws AppError RunFailed when the directory is gone,
 * QuotaExceeded when there is more than anybody reviews.
 */
export async function collectChanges(workspace: CollectSource, limits: CollectLimits): Promise<Collected> {
  await using jail = await workspace.openJail().catch((error: unknown) => {
    throw new AppError("RunFailed", "The agent removed its working directory.", {}, error);
  });
  const walk = await jail
    .walk(
      { maxEntries: limits.projectFiles * ENTRIES_PER_FILE, maxDepth: MAX_DEPTH, ignore: skipper(workspace) },
      "work",
    )
    .catch((error: unknown) => {
      throw new AppError("RunFailed", "The agent's working directory cannot be read any more.", {}, error);
    });
  return await new Collection(workspace, jail, limits, walk).run();
}

/** What the walk does not even look into: it may be huge. Paths the project itself has are always looked at. */
function skipper(workspace: CollectSource): (path: string, kind: "file" | "directory") => boolean {
  const known = new Set<string>();
  for (const path of workspace.base.keys()) {
    for (let at = path.lastIndexOf("/"); at !== -1; at = path.lastIndexOf("/", at - 1))
      known.add(path.slice(0, at));
  }
  return (path, kind) => {
    if (kind === "file" || known.has(path)) return false;
    return isNeverKept(path) || workspace.rules.ignores(path, "directory");
  };
}

class Collection {
  readonly #workspace: CollectSource;
  readonly #jail: Jail;
  readonly #limits: CollectLimits;
  readonly #walk: WalkResult;
  readonly #files: ChangedFile[] = [];
  readonly #warnings: string[] = [];
  readonly #unchanged: Collected["unchanged"] = [];
  #bytes = 0;

  constructor(workspace: CollectSource, jail: Jail, limits: CollectLimits, walk: WalkResult) {
    this.#workspace = workspace;
    this.#jail = jail;
    this.#limits = limits;
    this.#walk = walk;
  }

  async run(): Promise<Collected> {
    const { base } = this.#workspace;
    const found = this.#walk.entries.filter((entry) => entry.kind === "file");
    const rules = await this.#rules(found);
    for (const entry of found) {
      const before = base.get(entry.path) ?? null;
      if (before === null && rules.ignores(entry.path, "file")) continue;
      await this.#take(entry, before);
    }
    this.#deletions(new Set(found.map((entry) => entry.path)));
    for (const { path, reason } of this.#walk.skipped) this.#warn(path, `was left out: ${reason}`);
    if (this.#files.length > this.#limits.projectFiles) {
      throw new AppError("QuotaExceeded", `The run changed more than ${this.#limits.projectFiles} files.`);
    }
    this.#files.sort((one, other) => (one.path < other.path ? -1 : 1));
    const agentConfiguration = this.#walk.entries.some((entry) => isAgentConfiguration(entry.path));
    return { files: this.#files, warnings: this.#warnings, unchanged: this.#unchanged, agentConfiguration };
  }

  async #rules(found: readonly WalkEntry[]): Promise<IgnoreRules> {
    const rules = new IgnoreRules();
    for (const { path, size } of found) {
      if (!isRulesFile(path) || size > MAX_RULES_BYTES) continue;
      const file = await this.#jail.read(`work/${path}`, MAX_RULES_BYTES).catch(() => undefined);
      if (file !== undefined) rules.add(path, file.content.toString("utf8"));
    }
    return rules;
  }

  async #take(entry: WalkEntry, before: TreeFile | null): Promise<void> {
    const { path, size } = entry;
    if (sameLooks(this.#workspace.snapshot.get(path), entry)) return;
    if (isAgentConfiguration(path) && !this.#workspace.keepsAgentConfiguration) {
      this.#warn(path, "was left out: agents may not change the configuration of agents");
      return;
    }
    if (!storable(path)) {
      this.#warn(path, "was left out: projects cannot store such a name");
      return;
    }
    if (size > this.#limits.fileBytes) {
      this.#warn(path, `was left out: it is larger than ${this.#limits.fileBytes} bytes`);
      return;
    }
    const file = await this.#jail.read(`work/${path}`, this.#limits.fileBytes).catch((error: unknown) => {
      this.#warn(path, `was left out: ${error instanceof AppError ? error.message : "it cannot be read"}`);
      return undefined;
    });
    if (file === undefined) return;
    const { content, ctimeMs } = file;
    const seen = { size: content.length, executable: file.executable, ctimeMs };
    if (before !== null && sameAs(before, content, file.executable)) {
      this.#unchanged.push({ path, seen });
      return;
    }
    this.#bytes += file.content.length;
    if (this.#bytes > MAX_CHANGE_BYTES) {
      throw new AppError("QuotaExceeded", `The run changed more than ${MAX_CHANGE_BYTES / 1024 / 1024} MB.`, {
        hint: "Have large files generated elsewhere, or listed in .gitignore.",
      });
    }
    this.#files.push({ path, base: before, content, executable: file.executable, seen });
  }

  #deletions(found: ReadonlySet<string>): void {
    if (this.#walk.truncated) {
      this.#warnings.unshift("There are too many files to tell which ones the agent deleted.");
      return;
    }
    const unseen = this.#walk.skipped.map(({ path }) => path);
    const hidden = (path: string) => unseen.some((other) => path === other || path.startsWith(`${other}/`));
    const withheld = new Set(this.#workspace.withheld);
    for (const [path, base] of this.#workspace.base) {
      if (found.has(path) || withheld.has(path) || hidden(path)) continue;
      this.#files.push({ path, base, content: null, executable: base.executable, seen: null });
    }
  }

  #warn(path: string, what: string): void {
    if (this.#warnings.length < MAX_WARNINGS) this.#warnings.push(`${showPath(path)} ${what}`);
    else if (this.#warnings.length === MAX_WARNINGS) this.#warnings.push("More was left out.");
  }
}

/** Whether a file has not been touched since. */
function sameLooks(was: Snapshot | undefined, now: Snapshot): boolean {
  return was?.ctimeMs === now.ctimeMs && was.size === now.size && was.executable === now.executable;
}

function sameAs(before: TreeFile, content: Buffer, executable: boolean): boolean {
  if (before.size !== content.length || before.executable !== executable) return false;
  return createHash("sha256").update(content).digest().equals(before.blob_hash);
}

function storable(path: string): boolean {
  try {
    return normalizePath(path) === path;
  } catch {
    return false;
  }
}
