import type { Database } from "#database";
import {
  commitEdits,
  createProject,
  insertChange,
  type NewChange,
  type Project,
  putBlobs,
  type Quota,
  readBlobs,
  readTree,
} from "#database/projects/index.ts";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";

const MIB = 1024 * 1024;

export const QUOTA: Quota = {
  fileBytes: MIB,
  projectBytes: 64 * MIB,
  projectFiles: 10_000,
  userBytes: 256 * MIB,
  userProjects: 100,
};

/** A user who owns what a test makes; nobody can sign in as it. */
export async function makeOwner(database: Database): Promise<string> {
  const id = newId("user");
  await database.db
    .insertInto("users")
    .values({ id, username: id, password_hash: "none", role: "developer" })
    .execute();
  return id;
}

/** Text files by path. */
export type Files = Record<string, string>;

/** One project with short ways to change and look at it. */
export class TestProject {
  readonly database: Database;
  readonly owner: string;
  readonly id: string;

  constructor(database: Database, project: Project) {
    this.database = database;
    this.owner = project.owner_id;
    this.id = project.id;
  }

  static async make(database: Database, files: Files = {}, owner?: string): Promise<TestProject> {
    const owner_id = owner ?? (await makeOwner(database));
    const project = await createProject(database, { owner_id, name: "Rathaus", quota: QUOTA });
    const made = new TestProject(database, project);
    if (Object.keys(files).length > 0) await made.commit(files);
    return made;
  }

  /** Write (or with null delete) files as one revision. */
  async commit(
    files: Record<string, string | Buffer | null>,
    base_revision?: number,
    quota: Quota = QUOTA,
  ): Promise<{ revision: number; merged: boolean }> {
    const edits = Object.entries(files).map(([path, content]) => ({
      path,
      content: typeof content === "string" ? Buffer.from(content) : content,
    }));
    const who = { project_id: this.id, author: "ada", kind: "edit", summary: "Test" } as const;
    return commitEdits(this.database, { ...who, base_revision, edits, quota });
  }

  async files(revision?: number): Promise<Files> {
    const tree = await readTree(this.database.db, this.id, revision);
    const blobs = await readBlobs(
      this.database.db,
      tree.map((file) => file.blob_hash),
    );
    return Object.fromEntries(
      tree.map(({ path, blob_hash }) => [path, blobs.get(blob_hash.toString("hex"))?.toString() ?? "?"]),
    );
  }

  /** Propose files (null deletes) against what the project had at a revision. */
  async propose(
    files: Record<string, string | Buffer | null>,
    base_revision: number,
    more: Partial<NewChange> = {},
  ): Promise<string> {
    const base = new Map(
      (await readTree(this.database.db, this.id, base_revision)).map((file) => [file.path, file]),
    );
    const id = newId("change");
    const proposed: NewChange["files"][number][] = [];
    for (const [path, content] of Object.entries(files)) {
      const [hash] = content === null ? [] : await putBlobs(this.database.db, [Buffer.from(content)]);
      const before = base.get(path);
      proposed.push({
        path,
        base_hash: before?.blob_hash ?? null,
        new_hash: hash ?? null,
        executable: before?.executable ?? false,
      });
    }
    const change = { id, project_id: this.id, author: "CodeAgent", summary: "Proposal", base_revision };
    await insertChange(this.database.db, { ...change, files: proposed, ...more });
    return id;
  }

  async head(): Promise<{ revision: number; files: number; size: number }> {
    const row = await this.database.db
      .selectFrom("projects")
      .selectAll()
      .where("id", "=", this.id)
      .executeTakeFirstOrThrow();
    return { revision: row.head_revision, files: row.file_count, size: row.size_bytes };
  }
}

/** The AppError a promise fails with; fails itself when there is none. */
export async function refusalOf(work: Promise<unknown>): Promise<AppError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof AppError) return error;
  throw new Error(`expected an AppError, got ${String(error)}`, { cause: error });
}
