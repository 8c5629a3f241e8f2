import { sql } from "kysely";
import type { Db, ModelRow } from "../schema.ts";

/** A model that is installed on this machine. */
export type LocalModelRow = ModelRow & { file: string };

export interface InstalledFile {
  readonly name: string;
  /** Below the models directory. */
  readonly file: string;
  readonly size_bytes: number;
  readonly sha256?: string | undefined;
  readonly huggingface_url?: string | undefined;
}

/** Every installed model, by name. */
export async function listLocalModels(db: Db): Promise<LocalModelRow[]> {
  const rows = await db
    .selectFrom("models")
    .selectAll()
    .where("file", "is not", null)
    .orderBy("name")
    .execute();
  return rows as LocalModelRow[];
}

export async function findLocalModel(db: Db, name: string): Promise<LocalModelRow | undefined> {
  const row = await db
    .selectFrom("models")
    .selectAll()
    .where("name", "=", name)
    .where("file", "is not", null)
    .executeTakeFirst();
  return row as LocalModelRow | undefined;
}

/** A file is there under this name; what else is known of the name (its price) stays. */
export async function installModel(db: Db, model: InstalledFile): Promise<void> {
  const known = {
    file: model.file,
    size_bytes: model.size_bytes,
    sha256: model.sha256 ?? null,
    huggingface_url: model.huggingface_url ?? null,
    added_at: sql<Date>`now()`,
  };
  await db
    .insertInto("models")
    .values({ name: model.name, ...known })
    .onConflict((conflict) => conflict.column("name").doUpdateSet(known))
    .execute();
}

/** The file is gone; the name may still have a price. */
export async function uninstallModel(db: Db, name: string): Promise<void> {
  await db
    .updateTable("models")
    .set({ file: null, kind: null, size_bytes: null, sha256: null, is_loaded: false, added_at: null })
    .where("name", "=", name)
    .execute();
}

export interface ModelState {
  is_loaded?: boolean;
  enabled?: boolean;
  kind?: "chat" | "embedding";
  context_size?: number;
  load_config?: Record<string, unknown>;
}

/** What became known, or was decided, of a model. */
export async function setModelState(db: Db, name: string, state: ModelState): Promise<void> {
  const { load_config, ...rest } = state;
  const values = {
    ...rest,
    ...(load_config === undefined ? {} : { load_config: JSON.stringify(load_config) }),
  };
  if (Object.keys(values).length === 0) return;
  await db.updateTable("models").set(values).where("name", "=", name).execute();
}

/** After a start nothing is loaded, whatever was before. */
export async function resetLoaded(db: Db): Promise<void> {
  await db.updateTable("models").set({ is_loaded: false }).where("is_loaded", "=", true).execute();
}
