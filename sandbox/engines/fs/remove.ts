import { randomBytes } from "node:crypto";
import type { Dirent } from "node:fs";
import { chmod, lstat, opendir, rename, rmdir, unlink } from "node:fs/promises";
import { AppError } from "#schemas";
import { at, close, errorCode, ignoring, type Name, openDirectory, self } from "./descriptors.ts";

/** What goes deeper is first moved up, so that neither stack nor descriptors grow with the tree. */
const MAX_DEPTH = 32;
const BATCH = 256;
const PARALLEL = 16;

interface Removal {
  /** The directory being removed, open. */
  top: number;
  deadline: number;
}

function checkTime(removal: Removal): void {
  if (Date.now() > removal.deadline) {
    throw new AppError("Timeout", "A directory could not be removed in time.", {
      hint: "Something may still be writing to it; it is tried again at the next clean-up.",
    });
  }
}

/** The first entries of a directory; made readable first where its owner had taken that away. */
async function someEntries(directory: number): Promise<Dirent<Buffer>[]> {
  const open = () => opendir(self(directory), { encoding: "buffer" as BufferEncoding, bufferSize: BATCH });
  const entries: Dirent<Buffer>[] = [];
  const listing = await open().catch(async (error: unknown) => {
    ignoring("EACCES")(error);
    await chmod(self(directory), 0o700);
    return open();
  });
  for await (const entry of listing) {
    entries.push(entry as unknown as Dirent<Buffer>);
    if (entries.length >= BATCH) break;
  }
  return entries;
}

/** Do something in a directory, with the right to enter it and to write to it restored where that is missing. */
async function persistently<T>(directory: number, act: () => T | Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    ignoring("EACCES", "EPERM")(error);
    await chmod(self(directory), 0o700);
    return act();
  }
}

async function removeDirectory(parent: number, name: Name, depth: number, removal: Removal): Promise<void> {
  const directory = await persistently(parent, () => openDirectory(parent, name));
  try {
    if (depth > MAX_DEPTH) {
      // Moving a directory changes its `..`, so it must be writable itself.
      await chmod(self(directory), 0o700);
      const aside = at(removal.top, `.removed-${randomBytes(8).toString("hex")}`);
      await persistently(parent, () => rename(at(parent, name), aside));
      return;
    }
    await emptyAndRemove({ parent, name, directory }, depth, removal);
  } finally {
    // Of a directory that was removed this is the end: the kernel gives its blocks back, which waits for the disk.
    await close(directory);
  }
}

async function removeEntry(
  parent: number,
  entry: Dirent<Buffer>,
  depth: number,
  removal: Removal,
): Promise<void> {
  const { name } = entry;
  const known = entry.isDirectory() || entry.isFile() || entry.isSymbolicLink();
  const isDirectory = known
    ? entry.isDirectory()
    : (await persistently(parent, () => lstat(at(parent, name)))).isDirectory();
  if (isDirectory) await removeDirectory(parent, name, depth + 1, removal);
  else await persistently(parent, () => unlink(at(parent, name)));
}

async function removeSome(directory: number, depth: number, removal: Removal): Promise<void> {
  const tolerate = ignoring("ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENOTEMPTY", "EEXIST");
  const entries = await someEntries(directory);
  // Directories one by one, or a tree's width to the power of its depth would be open at once.
  const plain = entries.filter((entry) => !entry.isDirectory());
  for (let from = 0; from < plain.length; from += PARALLEL) {
    const some = plain.slice(from, from + PARALLEL);
    await Promise.all(some.map((entry) => removeEntry(directory, entry, depth, removal).catch(tolerate)));
  }
  for (const entry of entries.filter((each) => each.isDirectory())) {
    await removeEntry(directory, entry, depth, removal).catch(tolerate);
  }
}

interface Emptied {
  parent: number;
  name: Name;
  /** The same, open. */
  directory: number;
}

/** Until nothing is left: what changes meanwhile (gone, other kind, new) is met in the next round. */
async function emptyAndRemove(emptied: Emptied, depth: number, removal: Removal): Promise<void> {
  const { parent, name, directory } = emptied;
  for (;;) {
    checkTime(removal);
    await removeSome(directory, depth, removal);
    try {
      await persistently(parent, () => rmdir(at(parent, name)));
      return;
    } catch (error) {
      ignoring("ENOTEMPTY", "EEXIST")(error);
    }
  }
}

/**
 * Remove `name` in an open directory, whatever it is and however many, deep or locked away the things below
 * it; links are removed, never followed. Answers whether there was anything. Throws AppError Timeout when
 * `timeoutMs` were not enough.
 */
export async function removeTree(parent: number, name: Name, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs;
  try {
    const top = openDirectory(parent, name);
    try {
      await emptyAndRemove({ parent, name, directory: top }, 0, { top, deadline });
    } finally {
      await close(top);
    }
    return true;
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENOENT") return false;
    if (code !== "ELOOP" && code !== "ENOTDIR") throw error;
    await unlink(at(parent, name)).catch(ignoring("ENOENT"));
    return true;
  }
}
