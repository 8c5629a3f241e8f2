import { isUtf8 } from "node:buffer";
import type { Readable } from "node:stream";
import { crc32 } from "node:zlib";
import yauzl, { type Entry, type ZipFile } from "yauzl";
import {
  checkFileSize,
  exceeded,
  normalizeDirectory,
  normalizePath,
  type Quota,
  showPath,
} from "#database/projects/index.ts";
import { AppError } from "#schemas";

/** One regular file of an archive, whole and checked. */
export interface ArchivedFile {
  /** Normalised, unique in the archive. */
  readonly path: string;
  readonly content: Buffer;
  readonly executable: boolean;
}

const HOW_TO = "Make the archive again with a usual zip program.";
const FILE_TYPE = 0o170000;
const REGULAR = 0o100000;
const DIRECTORY = 0o040000;
const OWNER_MAY_EXECUTE = 0o100;
const UTF8_NAME = 0x800;
const UNICODE_PATH_FIELD = 0x7075;

/**
 * The files of a zip file on disk, one after the other, one in memory at a time.
 * @throws AppError InvalidArchive for what is broken, encrypted, linked, named twice or leads out of the
 * project; QuotaExceeded by what really comes out, whatever the headers say.
 */
export async function* readZip(path: string, quota: Quota): AsyncGenerator<ArchivedFile, void> {
  const zip = await whileReading(
    yauzl.openPromise(path, { lazyEntries: true, autoClose: false, validateEntrySizes: true }),
  );
  // A failure outside of a call of ours would otherwise end the process; the call itself reports it.
  zip.on("error", () => undefined);
  try {
    yield* filesOf(zip, quota);
  } finally {
    zip.close();
  }
}

async function* filesOf(zip: ZipFile, quota: Quota): AsyncGenerator<ArchivedFile, void> {
  const seen = new Set<string>();
  // Directories are entries as well; more than one per file is no usual archive.
  const maxEntries = quota.projectFiles * 2;
  let [entries, total] = [0, 0];
  const iterator = zip.eachEntry();
  for (;;) {
    const { done, value: entry } = await whileReading(iterator.next());
    if (done === true) return;
    entries += 1;
    const name = nameOf(entry);
    if (name.endsWith("/")) {
      archivePath(name, normalizeDirectory);
    } else {
      const path = archivePath(name, normalizePath);
      if (seen.has(path)) throw invalidArchive(`${showPath(path)} comes twice`);
      seen.add(path);
      checkEntry(entry, path);
      const content = await inflate(zip, entry, path, quota, total);
      total += content.length;
      yield { path, content, executable: (modeOf(entry) & OWNER_MAY_EXECUTE) !== 0 };
    }
    if (seen.size > quota.projectFiles || entries > maxEntries) {
      const what = `The archive has more than ${quota.projectFiles} files`;
      throw exceeded("project_files", what, "project", quota.projectFiles, zip.entryCount);
    }
  }
}

/** Names are UTF-8 when they say so, and also when they do not but are (as those of macOS); else code page 437. */
function nameOf(entry: Entry): string {
  const says = (entry.generalPurposeBitFlag & UTF8_NAME) !== 0;
  const hasUnicodeField = entry.extraFields.some(({ id }) => id === UNICODE_PATH_FIELD);
  if (says || hasUnicodeField || !isUtf8(entry.fileNameRaw)) return entry.fileName;
  return entry.fileNameRaw.toString("utf8").replaceAll("\\", "/");
}

function archivePath(name: string, normalize: (path: string) => string): string {
  try {
    return normalize(name);
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    const hint = /\.git/i.test(name) ? "Leave the .git directory out of the archive." : HOW_TO;
    throw new AppError("InvalidArchive", error.message, { path: name, hint }, error);
  }
}

/** The Unix mode an archive made on Unix has in the upper half of the external attributes; else 0. */
function modeOf(entry: Entry): number {
  return entry.externalFileAttributes >>> 16;
}

function checkEntry(entry: Entry, path: string): void {
  const type = modeOf(entry) & FILE_TYPE;
  if (type === DIRECTORY) throw invalidArchive(`${showPath(path)} is a directory that is named like a file`);
  if (type !== 0 && type !== REGULAR) {
    throw invalidArchive(`${showPath(path)} is a link or a device`, "Only regular files can be imported.");
  }
  if (entry.isEncrypted()) {
    throw invalidArchive(`${showPath(path)} is encrypted`, "Make the archive without a password.");
  }
  if (!entry.canDecodeFileData()) throw invalidArchive(`${showPath(path)} is compressed in an unusual way`);
}

async function inflate(
  zip: ZipFile,
  entry: Entry,
  path: string,
  quota: Quota,
  before: number,
): Promise<Buffer> {
  const stream: Readable = await whileReading(zip.openReadStreamPromise(entry), path);
  const chunks: Buffer[] = [];
  let size = 0;
  const collect = async () => {
    for await (const chunk of stream) {
      size += (chunk as Buffer).length;
      checkFileSize(quota, path, size);
      if (before + size > quota.projectBytes) {
        const what = "The archive's files are too large together";
        throw exceeded("project_bytes", what, "project", quota.projectBytes, before + size);
      }
      chunks.push(chunk as Buffer);
    }
  };
  await whileReading(collect(), path);
  const content = Buffer.concat(chunks, size);
  if (crc32(content) !== entry.crc32) throw invalidArchive(`the checksum of ${showPath(path)} is wrong`);
  return content;
}

/** Whatever the zip library says is the archive's fault. */
async function whileReading<T>(work: Promise<T>, path?: string): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof AppError) throw error;
    const reason = error instanceof Error ? error.message : "it is broken";
    throw invalidArchive(path === undefined ? reason : `${showPath(path)}: ${reason}`, HOW_TO, error);
  }
}

function invalidArchive(reason: string, hint: string = HOW_TO, cause?: unknown): AppError {
  return new AppError("InvalidArchive", `The archive cannot be imported: ${reason}.`, { hint }, cause);
}
