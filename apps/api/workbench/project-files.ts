import type { Database } from "#database";
import { commitEdits, listDirectory, normalizePath, readFile } from "#database/projects/index.ts";
import type { Quota } from "#database/projects/types.ts";
import type { WasmFiles } from "#sandbox";
import { AppError } from "#schemas";

/** What one call may write before it ends. */
const MAX_WRITTEN_BYTES = 32 * 1024 * 1024;
/** The most a module can be handed of one file. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

export interface ProjectFilesOptions {
  readonly database: Database;
  readonly project_id: string;
  readonly author: string;
  readonly quota: Quota;
}

/**
 * A project's files for a module. What it writes it reads back at once; the project gets it when `keep` is called,
 * as one revision.
 */
export class ProjectFiles implements WasmFiles {
  readonly maxBytes: number;
  readonly #options: ProjectFilesOptions;
  readonly #written = new Map<string, Buffer>();
  #bytes = 0;

  constructor(options: ProjectFilesOptions) {
    this.#options = options;
    this.maxBytes = Math.min(MAX_FILE_BYTES, options.quota.fileBytes);
  }

  async read(path: string): Promise<Uint8Array | undefined> {
    const name = normalizePath(path);
    const written = this.#written.get(name);
    if (written !== undefined) return written;
    const { database, project_id } = this.#options;
    return await readFile(database.db, project_id, name).then(({ content }) => content, ifNotFound);
  }

  async list(path: string) {
    const { database, project_id } = this.#options;
    const found = await listDirectory(database.db, project_id, path).catch(ifNotFound);
    const entries = new Map((found?.entries ?? []).map((entry) => [entry.name, entry]));
    const prefix = path === "" ? "" : `${normalizePath(path)}/`;
    for (const [name, content] of this.#written) {
      if (!name.startsWith(prefix)) continue;
      const [first = "", ...rest] = name.slice(prefix.length).split("/");
      const entry = {
        name: first,
        type: rest.length > 0 ? "directory" : "file",
        size: content.length,
      } as const;
      if (entry.type === "file" || !entries.has(first)) entries.set(first, entry);
    }
    if (entries.size === 0 && found === undefined && path !== "") return undefined;
    return [...entries.values()].map(({ name, type, size }) => ({
      name,
      directory: type === "directory",
      size,
    }));
  }

  async write(path: string, bytes: Uint8Array): Promise<void> {
    const name = normalizePath(path);
    const grown = this.#bytes + bytes.length - (this.#written.get(name)?.length ?? 0);
    if (bytes.length > this.maxBytes || grown > MAX_WRITTEN_BYTES) {
      throw new AppError("QuotaExceeded", "The module writes more than one call may.", {
        hint: `At most ${MAX_WRITTEN_BYTES} bytes a call, ${this.maxBytes} a file.`,
      });
    }
    this.#bytes = grown;
    this.#written.set(name, Buffer.from(bytes));
  }

  /** @returns the revision that has what was written since the last time; undefined when nothing was. */
  async keep(summary: string): Promise<number | undefined> {
    if (this.#written.size === 0) return undefined;
    const written = [...this.#written];
    const { database, project_id, author, quota } = this.#options;
    const edits = written.map(([path, content]) => ({ path, content }));
    const commit = { project_id, author, quota, kind: "run", summary, edits } as const;
    const { revision } = await commitEdits(database, commit);
    for (const [path, content] of written) if (this.#written.get(path) === content) this.#drop(path, content);
    return revision;
  }

  #drop(path: string, content: Buffer): void {
    this.#written.delete(path);
    this.#bytes -= content.length;
  }
}

function ifNotFound(error: unknown): undefined {
  if (error instanceof AppError && error.code === "NotFound") return undefined;
  throw error;
}
