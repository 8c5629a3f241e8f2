import type { Database } from "#database";
import {
  acceptChange,
  commitEdits,
  type FileVersion,
  getChange,
  insertChange,
  previewChange,
  putBlobs,
  readBlobs,
  readTree,
} from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import { QUOTA, TestProject } from "#tests/support/projects.ts";
import { editsBetween, type File, type Tree } from "./trees.ts";

/** How the project store merged a pair. */
export interface StoreMerge {
  /** Null: it is a conflict. */
  readonly result: Tree | null;
  readonly conflicts: readonly { readonly path: string; readonly kind: string }[];
  /** The result once every conflict was answered with both sides; what it is without, where there is no such answer. */
  readonly kept: Tree;
}

/** The quota of tests, but for files of any size. */
const ROOMY = { ...QUOTA, fileBytes: 64 * 1024 * 1024 };

/** Let `theirs` be proposed as a change of `base` while the project becomes `ours`, and accept it. */
export async function mergeInStore(
  database: Database,
  { base, ours, theirs }: { readonly base: Tree; readonly ours: Tree; readonly theirs: Tree },
  owner?: string,
): Promise<StoreMerge> {
  const project = await TestProject.make(database, {}, owner);
  await commit(database, project.id, new Map(), base);
  const { revision } = await project.head();
  const change_id = await propose(database, project.id, base, theirs, revision);
  await commit(database, project.id, base, ours);
  const accept = (resolutions: { path: string; content: Buffer | null }[] = []) =>
    acceptChange(database, { change_id, decided_by: "usr_ada", resolutions, quota: ROOMY });
  const preview = await previewChange(database.db, await getChange(database.db, change_id));
  const before = await treeOf(database, project.id);
  const conflicts = await conflictsOf(accept());
  if (conflicts.length === 0 && preview.conflicts.length === 0) {
    const result = await treeOf(database, project.id);
    return { result, conflicts, kept: result };
  }
  if (conflicts.length === 0) throw new Error("a conflict was shown, but accepted without an answer");
  const after = await treeOf(database, project.id);
  if (JSON.stringify([...before]) !== JSON.stringify([...after]))
    throw new Error("a conflict changed something");
  const resolutions = await Promise.all(
    preview.conflicts.map(async ({ path, moved_from, merged, current }) => {
      if (merged !== undefined) return { path, content: Buffer.from(merged) };
      const proposed = preview.files.flatMap((file) =>
        file.after !== null && (file.path === path || file.path === moved_from) ? [file.after] : [],
      );
      const sides = await contentsOf(database, [...(current === null ? [] : [current]), ...proposed]);
      return { path, content: Buffer.concat(sides.flatMap((side) => [side, Buffer.from("\n")])) };
    }),
  );
  // A file where a directory is has no answer but another name: the project and the change keep a side each.
  const unanswered = await conflictsOf(accept(resolutions));
  if (unanswered.length === 0) return { result: null, conflicts, kept: await treeOf(database, project.id) };
  if (!unanswered.every(({ kind }) => kind === "file_directory")) {
    throw new Error(`no answer settles ${JSON.stringify(unanswered)}`);
  }
  const kept = new Map(after);
  for (const { path, after: proposed } of preview.files) {
    if (proposed === null) continue;
    const [content] = await contentsOf(database, [proposed]);
    if (content !== undefined) kept.set(`change:${path}`, { content, executable: proposed.executable });
  }
  return { result: null, conflicts, kept };
}

async function conflictsOf(work: Promise<unknown>): Promise<{ path: string; kind: string }[]> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) return [];
  if (!(error instanceof AppError) || error.code !== "Conflict") throw error;
  return error.details.conflicts as { path: string; kind: string }[];
}

async function commit(database: Database, project_id: string, from: Tree, to: Tree): Promise<void> {
  const edits = editsBetween(from, to);
  const who = { project_id, author: "ada", kind: "edit", summary: "Test" } as const;
  await commitEdits(database, { ...who, edits, quota: ROOMY });
}

/** Propose a whole tree, as what an agent leaves in a workspace is proposed. @returns the change's id. */
async function propose(
  database: Database,
  project_id: string,
  base: Tree,
  theirs: Tree,
  base_revision: number,
): Promise<string> {
  const id = newId("change");
  const edits = editsBetween(base, theirs);
  const hashes = (
    await putBlobs(
      database.db,
      edits.flatMap(({ content }) => (content === null ? [] : [content])),
    )
  ).values();
  const present = await readTree(database.db, project_id, base_revision);
  const bases = new Map(present.map((file) => [file.path, file.blob_hash]));
  const files = edits.map(({ path, content, executable }) => ({
    path,
    base_hash: bases.get(path) ?? null,
    new_hash: content === null ? null : (hashes.next().value ?? null),
    executable: executable ?? false,
  }));
  const change = { id, project_id, author: "CodeAgent", summary: "Proposal", base_revision, files };
  await database.transaction((trx) => insertChange(trx, change));
  return id;
}

/** A project's files as a tree. */
async function treeOf(database: Database, project_id: string): Promise<Tree> {
  const files = await readTree(database.db, project_id);
  const contents = await contentsOf(database, files);
  const tree = new Map<string, File>();
  files.forEach(({ path, executable }, index) => {
    tree.set(path, { content: contents[index] ?? Buffer.alloc(0), executable });
  });
  return tree;
}

async function contentsOf(database: Database, versions: readonly FileVersion[]): Promise<Buffer[]> {
  const blobs = await readBlobs(
    database.db,
    versions.map(({ blob_hash }) => blob_hash),
  );
  return versions.map(({ blob_hash }) => {
    const content = blobs.get(blob_hash.toString("hex"));
    if (content === undefined) throw new Error("a content is missing in the store");
    return content;
  });
}
