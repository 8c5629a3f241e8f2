import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { type ModelName, writeModel } from "./catalogue.ts";

const PREFIX = "test-models-";
const VERSION_DIGITS = 16;
/** A version that was asked for since may be at work in another run, perhaps of another copy of the project. ms. */
const IN_USE_MS = 3_600_000;
const SOURCES = import.meta.dirname;
/** The clone's own place for what it made itself: nothing is left elsewhere. */
const home = () => process.env.CDS_TEST_MODELS ?? join(SOURCES, "../../../.runtime");

const underway = new Map<ModelName, Promise<string>>();
let version: Promise<string> | undefined;

/**
 * Path of a generated model's file. It is written when it is first asked for, and kept for all processes and later runs of
 * this user until the generator changes. Not to be changed: copy or link it.
 */
export function cachedModel(name: ModelName): Promise<string> {
  const known = underway.get(name);
  if (known !== undefined) return known;
  const path = provide(name).finally(() => underway.delete(name));
  underway.set(name, path);
  return path;
}

async function provide(name: ModelName): Promise<string> {
  // A user of its own has a directory of their own: another's could not be written to.
  const prefix = `${PREFIX}${process.getuid?.() ?? "all"}-`;
  version ??= versionOfSources();
  const directory = join(home(), prefix + (await version));
  const path = join(directory, `${name}.gguf`);
  const created = await mkdir(directory, { recursive: true });
  const now = new Date();
  await utimes(directory, now, now);
  if (created !== undefined) await removeUnused(prefix);
  if (existsSync(path)) return path;
  const partial = join(directory, `.${name}.${randomUUID()}`);
  try {
    writeModel(name, partial);
    // Whoever else wrote it meanwhile wrote the same bytes.
    await rename(partial, path);
  } finally {
    await rm(partial, { force: true });
  }
  return path;
}

/** The generator's own sources: what it writes follows from them. */
async function versionOfSources(): Promise<string> {
  const hash = createHash("sha256");
  const names = (await readdir(SOURCES)).filter((name) => name.endsWith(".ts") && !name.includes(".test."));
  for (const name of names.sort()) hash.update(await readFile(join(SOURCES, name)));
  return hash.digest("hex").slice(0, VERSION_DIGITS);
}

/** Other versions that nobody has asked for lately. */
async function removeUnused(prefix: string): Promise<void> {
  for (const name of (await readdir(home())).filter((each) => each.startsWith(prefix))) {
    const path = join(home(), name);
    // Another process may remove it at the same time.
    const used = await stat(path).catch(() => undefined);
    if (used === undefined || Date.now() - used.mtimeMs < IN_USE_MS) continue;
    await rm(path, { recursive: true, force: true });
  }
}
