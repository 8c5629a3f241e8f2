import { lchown, mkdir, open, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Db } from "#database";
import { getProject, readContents, readTree } from "#database/projects/index.ts";
import type { Delta, TreeFile } from "#database/projects/types.ts";
import { Jail, type WalkEntry } from "#sandbox";
import { AppError } from "#schemas";
import type { CollectSource } from "./collect.ts";
import { IgnoreRules, isAgentConfiguration, isRulesFile } from "./ignored.ts";

const PARALLEL_WRITES = 16;
/** Name of the request's directory while the agent has it; the same for all, see INSIDE.work. */
const ACTIVE = "request";
const PARTS = ["work", "prompts", "outputs", "temp", "pdfs"] as const;

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface WorkspacePlace {
  /** Directory out of the sandbox's reach, where requests are prepared and read. */
  readonly requests: string;
  /** The directory the sandbox sees. */
  readonly area: string;
  /** Who shall own the files; null = ourselves. */
  readonly owner: Owner | null;
}

/** What a workspace is made for. */
export interface WorkspaceRequest {
  readonly id: string;
  readonly project_id: string;
  readonly prompt: string;
  /** Of the project; without it the present one. */
  readonly revision?: number;
  /** Changes of the project's files that it starts with, as part of what comes of it. */
  readonly overlay?: readonly Delta[];
  /** Paths of it where changes collide: what becomes of them is the agent's own work. */
  readonly colliding?: readonly string[];
  /** Whether it gets the project's configuration for agents' programs, which is kept from them otherwise. */
  readonly agentConfig?: boolean;
}

/** How a file looked when the agent got it. */
export type Snapshot = Pick<WalkEntry, "size" | "executable" | "ctimeMs">;

/**
 * One request's own directory: `requests/<id>/{work,prompts,outputs,temp,pdfs}` (MU-2). It is filled where no
 * sandbox can reach it, moved in one step to where the agent works, and moved back before anything is read.
 */
export class Workspace implements CollectSource {
  readonly keepsAgentConfiguration = false;
  readonly revision: number;
  /** The project's files at `revision`. */
  readonly base: ReadonlyMap<string, TreeFile>;
  /** The same with what was laid over it and did not collide: what the agent's own work is told by. */
  readonly start: ReadonlyMap<string, TreeFile>;
  /** Paths of the project the agent does not get. */
  readonly withheld: readonly string[];
  readonly snapshot: ReadonlyMap<string, Snapshot>;
  /** The project's own .gitignore files, as the agent got them. */
  readonly rules: IgnoreRules;
  readonly #place: WorkspacePlace;
  readonly #id: string;
  #entered = false;

  private constructor(
    place: WorkspacePlace,
    id: string,
    tree: Pick<Workspace, "revision" | "base" | "start" | "withheld">,
    handed: { snapshot: ReadonlyMap<string, Snapshot>; rules: IgnoreRules },
  ) {
    this.#place = place;
    this.#id = id;
    this.revision = tree.revision;
    this.base = tree.base;
    this.start = tree.start;
    this.withheld = tree.withheld;
    this.snapshot = handed.snapshot;
    this.rules = handed.rules;
  }

  /**
   * Make the directory of request `id` and fill it with the project, and what lies over it.
   * @throws AppError NotFound when the project is gone; whatever the disk says.
   */
  static async prepare(db: Db, place: WorkspacePlace, request: WorkspaceRequest): Promise<Workspace> {
    const revision = request.revision ?? (await getProject(db, request.project_id)).head_revision;
    const tree = await readTree(db, request.project_id, revision);
    const isWithheld = request.agentConfig === true ? () => false : isAgentConfiguration;
    const withheld = tree.map((file) => file.path).filter(isWithheld);
    const base = byPath(tree);
    const dir = join(place.requests, request.id);
    await makeDirectory(dir, place.owner);
    await Promise.all(PARTS.map((part) => makeDirectory(join(dir, part), place.owner)));
    await writeNew(join(dir, "prompts", "prompt.md"), Buffer.from(request.prompt), false, place.owner);
    const work = join(dir, "work");
    const overlay = request.overlay ?? [];
    const handed = laidOver(tree, overlay, revision).filter((file) => !isWithheld(file.path));
    const rules = await fill(db, work, handed, place.owner);
    const snapshot = await snapshotOf(work, handed.length);
    // What was laid over the project is a change of it, whether the agent touches it or not.
    for (const { path } of overlay) snapshot.delete(path);
    const settled = overlay.filter(({ path }) => request.colliding?.includes(path) !== true);
    const start = byPath(laidOver(tree, settled, revision));
    return new Workspace(place, request.id, { revision, base, start, withheld }, { snapshot, rules });
  }

  /** The directory the sandbox sees and writes to. */
  get area(): string {
    return this.#place.area;
  }

  /** Let the sandbox have it. Whatever earlier runs left in its place is removed. */
  async enter(): Promise<void> {
    await clear(this.#place.area);
    await rename(join(this.#place.requests, this.#id), join(this.#place.area, ACTIVE));
    this.#entered = true;
  }

  /**
   * Take it back, out of the sandbox's reach; what the agent made of it is not trusted.
   * @throws AppError RunFailed when the agent removed or moved it.
   */
  async leave(): Promise<void> {
    if (!this.#entered) return;
    try {
      await rename(join(this.#place.area, ACTIVE), join(this.#place.requests, this.#id));
    } catch (error) {
      throw new AppError("RunFailed", "The agent removed its working directory.", {}, error);
    }
    this.#entered = false;
  }

  /** The request's directory, to be read without being led out of it. @throws AppError when it is none any more. */
  openJail(): Promise<Jail> {
    return Jail.open(join(this.#place.requests, this.#id));
  }

  /** Remove everything of this request, wherever it is. */
  async remove(): Promise<void> {
    if (this.#entered) await clear(this.#place.area);
    await using requests = await Jail.open(this.#place.requests);
    await requests.remove(this.#id);
  }
}

const byPath = (tree: readonly TreeFile[]) => new Map(tree.map((file) => [file.path, file]));

/** A tree with other files over it. */
export function laidOver(
  tree: readonly TreeFile[],
  overlay: readonly Delta[],
  revision: number,
): readonly TreeFile[] {
  if (overlay.length === 0) return tree;
  const files = new Map(tree.map((file) => [file.path, file]));
  for (const { path, to } of overlay) {
    if (to === null) files.delete(path);
    else files.set(path, { ...to, path, revision });
  }
  return [...files.values()].sort((one, other) => (one.path < other.path ? -1 : 1));
}

/** Put a project's files into an empty directory that no sandbox can reach. @returns its rules. */
export async function fill(
  db: Db,
  work: string,
  files: readonly TreeFile[],
  owner: Owner | null,
): Promise<IgnoreRules> {
  const rules = new IgnoreRules();
  const made = new Set<string>();
  for (const { path } of files) {
    // Parents first: `makeDirectory` makes one level.
    const missing: string[] = [];
    for (let at = dirname(path); at !== "." && !made.has(at); at = dirname(at)) {
      made.add(at);
      missing.unshift(at);
    }
    for (const directory of missing) await makeDirectory(join(work, directory), owner);
  }
  // Several take from the same stream of contents, which keeps its own bounds.
  const contents = readContents(db, files);
  const writers = Array.from({ length: PARALLEL_WRITES }, async () => {
    for await (const { file, content } of contents) {
      if (isRulesFile(file.path)) rules.add(file.path, content.toString("utf8"));
      await writeNew(join(work, file.path), content, file.executable, owner);
    }
  });
  await Promise.all(writers);
  return rules;
}

async function makeDirectory(path: string, owner: Owner | null): Promise<void> {
  await mkdir(path, { mode: 0o755 });
  if (owner !== null) await lchown(path, owner.uid, owner.gid);
}

/** A file that must not exist yet: nothing is ever written over or through. */
async function writeNew(
  path: string,
  content: Buffer,
  executable: boolean,
  owner: Owner | null,
): Promise<void> {
  const file = await open(path, "wx", executable ? 0o755 : 0o644);
  try {
    await file.writeFile(content);
    if (owner !== null) await file.chown(owner.uid, owner.gid);
  } finally {
    await file.close();
  }
}

/** Times of change as the kernel keeps them: what differs later has been touched, nobody can set them back. */
export async function snapshotOf(work: string, files: number): Promise<Map<string, Snapshot>> {
  if (files === 0) return new Map();
  await using jail = await Jail.open(work);
  const { entries } = await jail.walk({ maxEntries: 1_000_000, maxDepth: 512 });
  return new Map(entries.filter((entry) => entry.kind === "file").map((entry) => [entry.path, entry]));
}

async function clear(directory: string): Promise<void> {
  await using jail = await Jail.open(directory);
  for (const { name } of await jail.list("")) await jail.remove(name);
}
