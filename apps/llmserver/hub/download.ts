import { mkdir, realpath } from "node:fs/promises";
import { join, posix } from "node:path";
import type { Log } from "#platform/log.ts";
import { AppError } from "#schemas";
import { type AttemptOptions, withAttempts } from "./attempts.ts";
import { type Claim, claimTarget, type FreeSpace, freeSpace, requireSpace } from "./claims.ts";
import { downloadFailed, storageFailure } from "./failures.ts";
import { checkGgufHeader } from "./gguf-header.ts";
import { type HubConfig, HubHttp } from "./hub-http.ts";
import type { ModelSource } from "./parse-url.ts";
import { existingTarget, PartFile, removePart } from "./part-file.ts";
import { type DownloadProgress, Progress } from "./progress.ts";
import { describeFile, type RemoteFile, resolveFile } from "./repository.ts";
import { Transfer } from "./transfer.ts";

export interface DownloadOptions {
  /** From `parseModelUrl`. */
  source: ModelSource;
  /** Where models are kept; made when missing. */
  directory: string;
  hub: HubConfig;
  log: Log;
  /** Ends it within moments; what has arrived is kept and gone on with by the next start. */
  signal: AbortSignal;
  onProgress: (progress: DownloadProgress) => void;
  /** Largest file taken, bytes; the configuration's limit holds besides. */
  maxBytes?: number;
  /** What the disk has, where the file system's own figures do not tell. */
  freeSpace?: (directory: string) => Promise<FreeSpace>;
  /** Pause after the first failure, ms. */
  firstBackoffMs?: number;
}

export interface DownloadedModel {
  /** Absolute. */
  path: string;
  /** Its name within the directory. */
  file: string;
  bytes: number;
  /** In hex, verified. */
  sha256: string;
  source_url: string;
}

/**
 * Download one model file of a hub into a directory: gone on with after any interruption, verified by size, sha256
 * and its header, and only then there under its name. Nothing is ever overwritten; the same file that is there
 * already is the answer.
 * @throws AppError InvalidParams, NotFound, Conflict (there, or being downloaded), PayloadTooLarge, QuotaExceeded
 * (disk), DownloadFailed, InvalidModel, Cancelled.
 */
export async function downloadModel(options: DownloadOptions): Promise<DownloadedModel> {
  const { source, hub, log, onProgress } = options;
  await using http = new HubHttp(hub, log);
  using progress = new Progress(onProgress, log);
  progress.update({ state: "resolving" });
  const attempts = attemptOptions(options);
  const remotePath = await withAttempts(attempts, (attempt) => resolveFile(http, source, attempt));
  const file = posix.basename(remotePath);
  const target = join(await usableDirectory(options.directory), file);
  await using claim = await claimTarget(target);
  const remote = await withAttempts(attempts, (attempt) => describeFile(http, source, remotePath, attempt));
  checkSize(remote.size, options);
  progress.update({ total: remote.size });
  const there = await alreadyThere(target, remote, options, progress);
  if (!there) await fetchFile({ http, target, remote, claim, options, progress });
  progress.update({ state: "done", bytes: remote.size });
  return { path: target, file, bytes: remote.size, sha256: remote.oid, source_url: remote.url.href };
}

function attemptOptions({ signal, log, hub, firstBackoffMs }: DownloadOptions): AttemptOptions {
  return { signal, log, idleTimeoutMs: hub.idleTimeoutMs, firstBackoffMs };
}

/** The directory by its one true name, so that two ways to it are not two directories. */
async function usableDirectory(directory: string): Promise<string> {
  try {
    await mkdir(directory, { recursive: true });
    return await realpath(directory);
  } catch (error) {
    throw storageFailure(error);
  }
}

function checkSize(size: number, { maxBytes, hub }: DownloadOptions): void {
  const limit = Math.min(maxBytes ?? hub.maxModelBytes, hub.maxModelBytes);
  if (size <= limit) return;
  throw new AppError("PayloadTooLarge", `The file has ${size} bytes; ${limit} are allowed.`, {
    hint: "Choose a smaller quantisation, or raise CDS_MAX_MODEL_BYTES.",
    size_bytes: size,
    limit_bytes: limit,
  });
}

async function alreadyThere(
  target: string,
  remote: RemoteFile,
  { signal }: DownloadOptions,
  progress: Progress,
): Promise<boolean> {
  const identity = identityOf(remote);
  const onRead = (bytes: number) => progress.update({ state: "verifying", bytes });
  if (!(await existingTarget(target, identity, signal, onRead))) return false;
  // Killed between its last two steps, an earlier download left its part behind.
  await removePart(target);
  return true;
}

interface Fetch {
  http: HubHttp;
  target: string;
  remote: RemoteFile;
  claim: Claim;
  options: DownloadOptions;
  progress: Progress;
}

async function fetchFile({ http, target, remote, claim, options, progress }: Fetch): Promise<void> {
  await using part = await PartFile.open(target, identityOf(remote));
  const needed = () => remote.size - part.bytes;
  await requireSpace(target, needed(), options.freeSpace ?? freeSpace);
  claim.remaining = needed();
  await part.hashKept(options.signal, (bytes) => progress.update({ state: "verifying", bytes }));
  const transfer = new Transfer({
    http,
    file: remote,
    part,
    onBytes(received) {
      claim.remaining = needed();
      progress.update({ state: "downloading", bytes: part.bytes, received });
    },
  });
  progress.update({ state: "downloading", bytes: part.bytes });
  await withAttempts(attemptOptions(options), (attempt) => transfer.attempt(attempt));
  progress.update({ state: "verifying", bytes: part.bytes });
  await verify(part, remote);
  await part.finish();
}

/** What fails here would fail again: nothing of it is kept. */
async function verify(part: PartFile, { oid }: RemoteFile): Promise<void> {
  if (part.digest() !== oid) {
    await part.remove();
    throw downloadFailed(
      "The file is not what the hub says it is: its sha256 differs.",
      "What had arrived is removed; start the download again.",
    );
  }
  try {
    await checkGgufHeader(part.path);
  } catch (error) {
    await part.remove();
    throw error;
  }
}

function identityOf({ url, oid, size }: RemoteFile) {
  return { url: url.href, oid, size };
}
