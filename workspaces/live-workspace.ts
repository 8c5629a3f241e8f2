import { dirname } from "node:path";
import type { Database } from "#database";
import { getProject, hashContent, readContents, readTree } from "#database/projects/index.ts";
import type { Quota, TreeFile } from "#database/projects/types.ts";
import type { Log } from "#platform/log.ts";
import { Serial } from "#platform/serial.ts";
import { Jail, type JailFile, ownerOf, type SandboxHost, type Slot } from "#sandbox";
import { AppError } from "#schemas";
import { type CollectSource, collectChanges } from "./collect.ts";
import { IgnoreRules, isRulesFile } from "./ignored.ts";
import { type Kept, keepChanges } from "./keep-changes.ts";
import { fill, type Snapshot, snapshotOf } from "./workspace.ts";

/** Where programs see it. */
export const INSIDE = { work: "/workspace", home: "/home/user" } as const;
/** A file changed this shortly before it was looked at may change again within the clock's step: look twice. */
const RACY_MS = 50;

export interface LiveWorkspaceDeps {
  readonly database: Database;
  readonly sandboxes: Pick<SandboxHost, "slots">;
  readonly quota: Quota;
  readonly log: Log;
}

export interface WorkspaceOwner {
  readonly user_id: string;
  readonly username: string;
}

/** What `flush` did. */
export interface Flushed extends Kept {
  /** What was left out and why, safe to show. */
  readonly warnings: readonly string[];
}

/**
 * A project's files on disk for programs that a person starts by hand, in a slot of its own, for as long as somebody
 * uses it. Both directions are merges: `flush` makes a revision of what programs changed, `refresh` brings what the
 * project has become. Programs may be changing the files at that very moment: nothing here trusts them, and a file
 * touched since it was looked at is left for the next round.
 */
export class LiveWorkspace implements CollectSource {
  readonly keepsAgentConfiguration = true;
  readonly withheld: readonly string[] = [];
  readonly project_id: string;
  readonly slot: Slot;
  /** Host directories behind INSIDE. */
  readonly work: string;
  readonly home: string;
  readonly #deps: LiveWorkspaceDeps;
  readonly #owner: WorkspaceOwner;
  readonly #serial = new Serial();
  #base = new Map<string, TreeFile>();
  #snapshot = new Map<string, Snapshot>();
  #rules = new IgnoreRules();
  #revision = 0;
  /** Paths the project has got, where a program's own file stood: they were absent at that revision. */
  readonly #absentAt = new Map<string, number>();
  /** Paths whose newer version in the project has not been brought to disk, as programs changed the file. */
  readonly #keptBack = new Set<string>();
  #closed = false;

  private constructor(
    deps: LiveWorkspaceDeps,
    owner: WorkspaceOwner,
    place: { project_id: string; slot: Slot; work: string; home: string },
  ) {
    this.#deps = deps;
    this.#owner = owner;
    ({ project_id: this.project_id, slot: this.slot, work: this.work, home: this.home } = place);
  }

  /** @throws AppError NotFound when the project is gone, and what slots and the disk say. */
  static async open(
    deps: LiveWorkspaceDeps,
    owner: WorkspaceOwner,
    project_id: string,
    signal: AbortSignal,
  ): Promise<LiveWorkspace> {
    const slot = await deps.sandboxes.slots.acquire(signal);
    try {
      const work = await slot.makeDir("work");
      const home = await slot.makeDir("home");
      const workspace = new LiveWorkspace(deps, owner, { project_id, slot, work, home });
      await workspace.#fill();
      return workspace;
    } catch (error) {
      await slot.release();
      throw error;
    }
  }

  get base(): ReadonlyMap<string, TreeFile> {
    return this.#base;
  }

  get snapshot(): ReadonlyMap<string, Snapshot> {
    return this.#snapshot;
  }

  get rules(): IgnoreRules {
    return this.#rules;
  }

  /** The project's revision that the disk was last brought to. */
  get revision(): number {
    return this.#revision;
  }

  openJail(): Promise<Jail> {
    return Jail.open(this.slot.dir, { owner: ownerOf(this.slot) });
  }

  /** Bring the disk to what the project is now, keeping what programs have changed. @throws AppError NotFound. */
  refresh(): Promise<void> {
    return this.#serial.run(() => this.#refresh());
  }

  /**
   * Make a revision of what programs changed since the last time; where that collides with what others did, a change
   * to review, and the disk takes the project's side.
   * @throws AppError QuotaExceeded when there is more than the project may hold (it stays on disk), NotFound.
   */
  flush(summary: string): Promise<Flushed> {
    return this.#serial.run(() => this.#flush(summary));
  }

  /** End everything that runs here, and remove the files. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#serial.run(() => this.slot.release());
  }

  async #fill(): Promise<void> {
    const { db } = this.#deps.database;
    const { head_revision } = await getProject(db, this.project_id);
    const tree = await readTree(db, this.project_id, head_revision);
    this.#rules = await fill(db, this.work, tree, ownerOf(this.slot));
    this.#snapshot = await snapshotOf(this.work, tree.length);
    this.#base = new Map(tree.map((file) => [file.path, file]));
    this.#revision = head_revision;
  }

  async #flush(summary: string): Promise<Flushed> {
    this.#checkOpen();
    const { quota, database, log } = this.#deps;
    const { files, warnings, unchanged } = await collectChanges(this, quota);
    for (const { path, seen } of unchanged) this.#remember(path, seen);
    if (files.length === 0) return { warnings };
    const kept = await keepChanges(database, {
      project_id: this.project_id,
      author: this.#owner.username,
      summary,
      quota,
      files: files.map((file) => ({ ...file, base_revision: this.#baseRevision(file.path) })),
    });
    log.info({ project_id: this.project_id, ...kept, files: files.length }, "kept what programs changed");
    for (const { path, seen } of files) this.#remember(path, seen);
    // What has just been kept may give way on disk to what the project made of it.
    await this.#refresh(new Map(files.map((file) => [file.path, contentOf(file)])));
    return { ...kept, warnings };
  }

  /** A revision at which the project had at `path` what programs started from. */
  #baseRevision(path: string): number {
    const base = this.#base.get(path);
    if (base === undefined) return this.#absentAt.get(path) ?? this.#revision;
    return this.#keptBack.has(path) ? base.revision : this.#revision;
  }

  async #refresh(kept: ReadonlyMap<string, Content> = new Map()): Promise<void> {
    this.#checkOpen();
    const { db } = this.#deps.database;
    const { head_revision } = await getProject(db, this.project_id);
    if (head_revision === this.#revision && kept.size === 0) return;
    const tree = await readTree(db, this.project_id, head_revision);
    await using jail = await this.openJail();
    const gone = new Map(this.#base);
    const present = new Set(tree.map(({ path }) => path));
    for (const path of present) gone.delete(path);
    for (const base of gone.values()) await this.#takeAway(jail, base, kept.get(base.path));
    for (const [path, content] of kept) {
      if (!this.#base.has(path) && !present.has(path)) await this.#leave(jail, path, content);
    }
    const wanted = tree.filter(
      (file) => kept.has(file.path) || !sameVersion(this.#base.get(file.path), file),
    );
    for await (const { file, content } of readContents(db, wanted)) {
      await this.#bring(jail, file, content, kept.get(file.path));
    }
    this.#revision = head_revision;
  }

  /** A new file that went to review and that the project does not have: it leaves the disk. */
  async #leave(jail: Jail, path: string, kept: Content): Promise<void> {
    const there = await this.#read(jail, path);
    if (there !== null && sameContent(contentOf(there), kept)) await jail.remove(`work/${path}`);
  }

  /** The project has deleted the file. */
  async #takeAway(jail: Jail, base: TreeFile, kept: Content | undefined): Promise<void> {
    const { path } = base;
    const there = await this.#read(jail, path);
    const now = there === null ? null : contentOf(there);
    if (now !== null && !sameContent(now, base) && !(kept !== undefined && sameContent(now, kept))) {
      this.#keptBack.add(path);
      return;
    }
    if (now !== null) await jail.remove(`work/${path}`);
    this.#forget(path);
    this.#base.delete(path);
    // A project knows no empty directories: those above go with their last file.
    for (let at = dirname(path); at !== "."; at = dirname(at)) {
      if (!(await jail.removeEmpty(`work/${at}`))) break;
    }
  }

  /** The project has this content: put it there, unless a program has changed what it replaces. */
  async #bring(jail: Jail, file: TreeFile, content: Buffer, kept: Content | undefined): Promise<void> {
    const { path, executable } = file;
    const base = this.#base.get(path) ?? null;
    let seen = await this.#read(jail, path);
    const now = seen === null ? null : contentOf(seen);
    if (!sameContent(now, file)) {
      const replaceable = sameContent(now, base) || (kept !== undefined && sameContent(now, kept));
      // Between this look and the replacement a program has a moment to write; no lock would bind it.
      const written = replaceable && (await this.#write(jail, path, content, executable));
      if (!written) {
        if (base === null) this.#absentAt.set(path, this.#absentAt.get(path) ?? this.#revision);
        else this.#keptBack.add(path);
        return;
      }
      seen = await this.#read(jail, path);
    }
    this.#forget(path);
    this.#base.set(path, file);
    if (isRulesFile(path)) this.#rules.add(path, content.toString("utf8"));
    if (seen !== null && sameContent(contentOf(seen), file)) this.#remember(path, looksOf(seen));
  }

  /** @returns false where something else stands in the way, a directory say. */
  async #write(jail: Jail, path: string, content: Buffer, executable: boolean): Promise<boolean> {
    try {
      await jail.write(`work/${path}`, content, { executable });
      return true;
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      this.#deps.log.info({ project_id: this.project_id, reason: error.code }, "a file has no place on disk");
      return false;
    }
  }

  /** Null: there is nothing. What could be no file of a project (a link, too large) is like no content there is. */
  async #read(jail: Jail, path: string): Promise<JailFile | null> {
    return jail.read(`work/${path}`, this.#deps.quota.fileBytes).catch((error: unknown) => {
      if (!(error instanceof AppError)) throw error;
      return error.code === "NotFound" ? null : NO_FILE;
    });
  }

  #remember(path: string, seen: Snapshot | null): void {
    // Changed again within one step of the clock it would look the same: such a file is read again next time.
    if (seen !== null && Date.now() - seen.ctimeMs > RACY_MS) this.#snapshot.set(path, seen);
    else this.#snapshot.delete(path);
  }

  #forget(path: string): void {
    this.#snapshot.delete(path);
    this.#keptBack.delete(path);
    this.#absentAt.delete(path);
  }

  #checkOpen(): void {
    if (this.#closed) throw new AppError("Unavailable", "The workspace is being closed.");
  }
}

/** What stands at a path: null = nothing. */
type Content = Pick<TreeFile, "blob_hash" | "executable"> | null;

function contentOf(file: { content: Buffer | null; executable: boolean }): Content {
  if (file.content === null) return null;
  return { blob_hash: hashContent(file.content), executable: file.executable };
}

function sameContent(one: Content, other: Content): boolean {
  if (one === null || other === null) return one === other;
  return one.executable === other.executable && one.blob_hash.equals(other.blob_hash);
}

function sameVersion(base: TreeFile | undefined, file: TreeFile): boolean {
  return base !== undefined && sameContent(base, file);
}

/** Stands for what cannot be read: equal to no file, for none has a negative time. */
const NO_FILE: JailFile = {
  content: Buffer.from("\0not a file"),
  executable: true,
  mtimeMs: -1,
  ctimeMs: -1,
};

const looksOf = ({ content, executable, ctimeMs }: JailFile): Snapshot => ({
  size: content.length,
  executable,
  ctimeMs,
});
