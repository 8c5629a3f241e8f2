import { copyFile, mkdtemp, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalModels, type LocalModelsOptions } from "#apps/llmserver/local/models.ts";
import type { Db } from "#database/schema.ts";
import { readConfig } from "#platform/config/config.ts";
import { createLogger } from "#platform/log.ts";
import { testDatabase } from "./database.ts";
import { cachedModel } from "./gguf/index.ts";

type ModelName = Parameters<typeof cachedModel>[0];

/** The models of a machine: a directory, a database, and what manages them. */
export interface MachineModels extends AsyncDisposable {
  models: LocalModels;
  readonly directory: string;
  readonly db: Db;
  /** What was logged, as text. */
  readonly logged: string[];
  /** Put a generated model there under this file name; `bytes`: only its beginning. */
  put(name: ModelName, file?: string, bytes?: number): Promise<void>;
  /** As after a new start of the server. */
  restart(env?: Record<string, string>, options?: Options): Promise<void>;
}

type Options = Partial<Pick<LocalModelsOptions, "readMemory" | "unloadGraceMs">>;

/** These generated models, each under its own name, on a machine of their own. */
export async function startMachineModels(
  names: readonly ModelName[],
  env: Record<string, string> = {},
  options: Options = {},
): Promise<MachineModels> {
  const directory = await mkdtemp(join(tmpdir(), "cds-machine-"));
  const test = await testDatabase();
  const { db } = test.database;
  const logged: string[] = [];
  const log = createLogger(
    { level: "debug", pretty: false },
    { write: (line: string) => void logged.push(line) },
  );
  const put = async (name: ModelName, file = `${name}.gguf`, bytes?: number) => {
    await copyFile(await cachedModel(name), join(directory, file));
    if (bytes !== undefined) await truncate(join(directory, file), bytes);
  };
  const open = (more: Record<string, string>, other: Options) => {
    const settings = { CDS_LLM_CONTEXT: "1024", CDS_LLM_SEQUENCES: "2", CDS_LLM_MEMORY_RESERVE_MB: "0" };
    const config = readConfig({ CDS_MODELS_DIR: directory, ...settings, ...more });
    return LocalModels.open({ db, config, log, ...other });
  };
  for (const name of names) await put(name);
  const machine: MachineModels = {
    models: await open(env, options),
    directory,
    db,
    logged,
    put,
    async restart(more = env, other = options) {
      await machine.models.close();
      machine.models = await open(more, other);
    },
    async [Symbol.asyncDispose]() {
      await machine.models.close();
      await test[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
  return machine;
}
