import { lstat, mkdir, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { DEMO_MODEL } from "#database/accounts/provider-resolution.ts";
import {
  findLocalModel,
  type InstalledFile,
  installModel,
  type LocalModelRow,
  listLocalModels,
  uninstallModel,
} from "#database/models/index.ts";
import type { Db } from "#database/schema.ts";
import { isObject } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import { Serial } from "#platform/serial.ts";
import { AppError, localModelNameSchema } from "#schemas";
import { checkGgufHeader } from "../../hub/gguf-header.ts";
import { isSplitFile } from "../../hub/parse-url.ts";
import { modelNotFound } from "./failures.ts";

const SUFFIX = ".gguf";

export interface RegistryOptions {
  db: Db;
  /** Where the files are. */
  directory: string;
  log: Log;
}

/** The models directory and the database, kept alike: what is installed is a file in one and a row in the other. */
export class ModelRegistry {
  readonly #db: Db;
  readonly #directory: string;
  readonly #log: Log;
  readonly #writes = new Serial();
  /** Files that are no models of ours, by their size: told once. */
  #ignored = new Map<string, number>();
  /** When a scan found a file, on the clock of `performance.now()`. */
  readonly #found = new Map<string, number>();
  #scanning: Promise<string[]> | undefined;

  constructor({ db, directory, log }: RegistryOptions) {
    this.#db = db;
    this.#directory = directory;
    this.#log = log;
  }

  list(): Promise<LocalModelRow[]> {
    return listLocalModels(this.#db);
  }

  /** @throws AppError ModelNotFound. */
  async find(name: string): Promise<LocalModelRow> {
    const row = await findLocalModel(this.#db, name);
    if (row === undefined) throw modelNotFound(name);
    return row;
  }

  /** Absolute. @throws AppError ModelNotFound when the file is gone, or is no file of its own any more. */
  async pathOf({ name, file }: LocalModelRow): Promise<string> {
    const path = this.#pathTo(file);
    const stat = await lstat(path).catch(() => undefined);
    if (stat?.isFile() !== true) throw modelNotFound(name);
    return path;
  }

  /**
   * Register the files that were put there by hand and forget those that were taken away. A scan under way is joined.
   * @returns names whose file is gone, or another one by now.
   */
  scan(): Promise<string[]> {
    this.#scanning ??= this.#writes
      .run(() => this.#scan())
      .finally(() => {
        this.#scanning = undefined;
      });
    return this.#scanning;
  }

  /**
   * A file that was downloaded is that model now. `since`: when its download began, on the clock of `performance.now()`; a
   * scan may have come upon the file under its own name after that.
   * @throws AppError Conflict when the name stands for another file.
   */
  install(model: InstalledFile, since: number): Promise<void> {
    return this.#writes.run(async () => {
      const known = await findLocalModel(this.#db, model.name);
      if (known !== undefined && known.file !== model.file) {
        throw new AppError("Conflict", `The model "${model.name}" is another file: ${known.file}.`, {
          hint: "Remove that one first, or give this one another model_id.",
        });
      }
      await installModel(this.#db, model);
      const own = nameOf(model.file);
      if (own !== model.name && (this.#found.get(model.file) ?? -1) >= since) {
        await uninstallModel(this.#db, own);
      }
    });
  }

  /** Delete the file; every name it had is gone. @throws AppError Unavailable when the system refuses. */
  remove({ file }: LocalModelRow): Promise<void> {
    return this.#writes.run(async () => {
      await rm(this.#pathTo(file), { force: true }).catch((error: unknown) => {
        throw new AppError(
          "Unavailable",
          `The model's file cannot be removed (${codeOf(error)}).`,
          {},
          error,
        );
      });
      for (const row of await this.list()) if (row.file === file) await uninstallModel(this.#db, row.name);
    });
  }

  async #scan(): Promise<string[]> {
    const files = await this.#files();
    if (files === undefined) return [];
    const stale: string[] = [];
    const rows = await this.list();
    for (const row of rows) {
      const size = files.get(row.file);
      if (size === row.size_bytes) continue;
      stale.push(row.name);
      if (size === undefined) await uninstallModel(this.#db, row.name);
      else await installModel(this.#db, { name: row.name, file: row.file, size_bytes: size });
      this.#log.info(
        { model_id: row.name, file: row.file, size },
        "a model's file was changed or taken away",
      );
    }
    const ignored = this.#ignored;
    this.#ignored = new Map();
    for (const [file, size] of files) {
      if (rows.some((row) => row.file === file)) continue;
      const why = await this.#discover(file, size, rows);
      if (why === undefined) continue;
      this.#ignored.set(file, size);
      if (ignored.get(file) !== size) this.#log.warn({ file, why }, "a file is not taken for a model");
    }
    return stale;
  }

  /** @returns why it is no model of ours. */
  async #discover(file: string, size: number, rows: readonly LocalModelRow[]): Promise<string | undefined> {
    const name = nameOf(file);
    if (isSplitFile(file)) return "It is one part of a split model.";
    if (!localModelNameSchema.safeParse(name).success || name === DEMO_MODEL) {
      return "Its name is none a model can have.";
    }
    const other = rows.find((row) => row.name === name);
    if (other !== undefined) return `The model of that name is ${other.file}.`;
    try {
      await checkGgufHeader(this.#pathTo(file));
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
    this.#found.set(file, performance.now());
    await installModel(this.#db, { name, file, size_bytes: size });
    this.#log.info({ model_id: name, file, size }, "model found");
    return undefined;
  }

  /** Sizes of the regular files that may be models; undefined when the directory cannot be read, which says nothing. */
  async #files(): Promise<Map<string, number> | undefined> {
    try {
      await mkdir(this.#directory, { recursive: true });
      const files = new Map<string, number>();
      for (const name of (await readdir(this.#directory)).sort()) {
        if (!name.endsWith(SUFFIX) || name.startsWith(".")) continue;
        const stat = await lstat(this.#pathTo(name)).catch(() => undefined);
        if (stat?.isFile() === true) files.set(name, stat.size);
      }
      return files;
    } catch (error) {
      this.#log.warn({ err: error, directory: this.#directory }, "the models directory cannot be read");
      return undefined;
    }
  }

  #pathTo(file: string): string {
    return join(this.#directory, basename(file));
  }
}

/** What a file is called as a model, unless an administrator named it. */
export function nameOf(file: string): string {
  return file.slice(0, -SUFFIX.length);
}

function codeOf(error: unknown): string {
  return isObject(error) && typeof error.code === "string" ? error.code : "unknown";
}
