import { type Migration, type MigrationProvider, Migrator } from "kysely/migration";
import { AppError } from "#schemas";
import type { Db } from "../schema.ts";
import { up as core } from "./0001-core.ts";
import { up as blobCollection } from "./0002-blob-collection.ts";
import { up as queueFunctions } from "./0003-queue-functions.ts";
import { up as historySize } from "./0004-history-size.ts";
import { up as money } from "./0005-money.ts";
import { up as localModels } from "./0006-local-models.ts";
import { up as runs } from "./0007-runs.ts";
import { up as snapshots } from "./0008-snapshots.ts";
import { up as plans } from "./0009-plans.ts";
import { up as changeLinks } from "./0010-change-links.ts";
import { up as agentConfig } from "./0011-agent-config.ts";

/** Every migration in the order it is applied: adding one = one file + one line. */
const MIGRATIONS: Readonly<Record<string, Migration>> = {
  "0001-core": { up: core },
  "0002-blob-collection": { up: blobCollection },
  "0003-queue-functions": { up: queueFunctions },
  "0004-history-size": { up: historySize },
  "0005-money": { up: money },
  "0006-local-models": { up: localModels },
  "0007-runs": { up: runs },
  "0008-snapshots": { up: snapshots },
  "0009-plans": { up: plans },
  "0010-change-links": { up: changeLinks },
  "0011-agent-config": { up: agentConfig },
};

const provider: MigrationProvider = { getMigrations: async () => ({ ...MIGRATIONS }) };

/**
 * Bring the schema up to date; several processes may call it at once, one migrates and the others wait.
 * @returns the names applied by this call.
 * @throws AppError Unavailable when a migration fails (everything is rolled back) or the database is newer
 * than this program.
 */
export async function migrate(db: Db): Promise<string[]> {
  const { error, results } = await new Migrator({ db, provider }).migrateToLatest();
  if (error !== undefined) {
    const failed = results?.find((result) => result.status === "Error")?.migrationName;
    throw new AppError(
      "Unavailable",
      failed === undefined ? "The database could not be migrated." : `Migration ${failed} failed.`,
      {
        hint: "Nothing was changed. If the database was used by a newer version, start that version again.",
      },
      error,
    );
  }
  return (results ?? []).map((result) => result.migrationName);
}
