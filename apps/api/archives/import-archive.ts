import { createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Database } from "#database";
import { commitImport, type NamedVersion, type Quota, storeFiles } from "#database/projects/index.ts";
import { AppError } from "#schemas";
import { type ArchivedFile, readZip } from "./read-zip.ts";

/** Contents that are stored together; with one file this is what an import takes of memory. */
const STORE_BYTES = 8 * 1024 * 1024;
const STORE_FILES = 500;

export interface ArchiveImport {
  readonly project_id: string;
  readonly author: string;
  /** Whether to delete what the archive does not have. */
  readonly replace: boolean;
  readonly quota: Quota;
}

/**
 * Keep an uploaded body in a file while `use` works on it; the file goes with it.
 * @throws AppError PayloadTooLarge past `limit` bytes, InvalidRequest when the upload breaks off.
 */
export async function withUpload<T>(
  body: Readable,
  { limit, prefix }: { limit: number; prefix: string },
  use: (path: string) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), `${prefix}import-`));
  try {
    const path = join(directory, "upload.zip");
    await receive(body, path, limit);
    return await use(path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What is too long is still read up to twice the limit: who is cut off while sending never reads the answer. */
async function receive(body: Readable, path: string, limit: number): Promise<void> {
  let size = 0;
  const tooLarge = () =>
    new AppError("PayloadTooLarge", `The archive is larger than ${limit} bytes.`, { limit_bytes: limit });
  const count = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      size += chunk.length;
      if (size > limit * 2) done(tooLarge());
      else if (size > limit) done();
      else done(null, chunk);
    },
  });
  try {
    await pipeline(body, count, createWriteStream(path, { flags: "wx", mode: 0o600 }));
  } catch (error) {
    if (
      error instanceof AppError ||
      (error instanceof Error && "syscall" in error && error.syscall === "write")
    ) {
      throw error;
    }
    throw new AppError("InvalidRequest", "The upload broke off.", {}, error);
  }
  if (size > limit) throw tooLarge();
}

/**
 * Make a zip file's content one revision of a project: everything in it, or nothing.
 * @throws AppError InvalidArchive, QuotaExceeded, Conflict, NotFound.
 */
export async function importArchive(
  database: Database,
  path: string,
  { project_id, author, replace, quota }: ArchiveImport,
): Promise<{ revision: number; files: number }> {
  const files: NamedVersion[] = [];
  let waiting: ArchivedFile[] = [];
  let bytes = 0;
  const store = async () => {
    files.push(...(await storeFiles(database.db, waiting, quota)));
    waiting = [];
    bytes = 0;
  };
  for await (const file of readZip(path, quota)) {
    waiting.push(file);
    bytes += file.content.length;
    if (bytes >= STORE_BYTES || waiting.length >= STORE_FILES) await store();
  }
  await store();
  const summary = `Import ${files.length} ${files.length === 1 ? "file" : "files"}`;
  const commit = { project_id, author, kind: "import", summary, files, replace, quota } as const;
  const { revision } = await commitImport(database, commit);
  return { revision, files: files.length };
}
