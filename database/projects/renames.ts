import type { Db } from "../schema.ts";
import { batches, readBlobs } from "./blobs.ts";
import type { FileVersion } from "./types.ts";

/** What one side did to a path. */
export interface PathChange {
  readonly path: string;
  readonly before: FileVersion | null;
  readonly after: FileVersion | null;
}

/** Share of the larger of two contents that the other must have in common to be the same file moved, as git's. */
const MIN_SIMILARITY = 0.5;
/** A larger file is known again only unchanged, bytes. */
const MAX_COMPARED_BYTES = 1024 * 1024;
/** Contents read to find moved and edited files, bytes; the rest are known again only unchanged. */
const MAX_READ_BYTES = 16 * 1024 * 1024;
/** Chunks looked up while comparing, about 0.2 s: past it the rest are known again only unchanged. */
const MAX_LOOKUPS = 1_000_000;
/** A line counts as so many characters at most at once, so that binary contents can be compared, too. */
const MAX_CHUNK_CHARS = 64;

interface Deleted extends PathChange {
  readonly before: FileVersion;
}
interface Added extends PathChange {
  readonly after: FileVersion;
}

/**
 * Which deleted files came back under another name, unchanged or similar: old path -> new path. Each is used
 * once, the most similar first. Empty files are like any other empty file and are not looked at.
 */
export async function findRenames(db: Db, changes: readonly PathChange[]): Promise<Map<string, string>> {
  const deleted = changes.filter(
    (change): change is Deleted => change.after === null && (change.before?.size ?? 0) > 0,
  );
  const added = changes.filter(
    (change): change is Added => change.before === null && (change.after?.size ?? 0) > 0,
  );
  const renames = new Map<string, string>();
  if (deleted.length === 0 || added.length === 0) return renames;
  const left = pairEqual(deleted, added, renames);
  if (left.deleted.length === 0 || left.added.length === 0) return renames;
  const chunks = await readChunks(db, left.deleted, left.added);
  pairSimilar(left.deleted, left.added, chunks, renames);
  return renames;
}

/** Pair files of the same content, those of the same name first. @returns what is left. */
function pairEqual(
  deleted: readonly Deleted[],
  added: readonly Added[],
  renames: Map<string, string>,
): { deleted: Deleted[]; added: Added[] } {
  const byContent = new Map<string, Added[]>();
  for (const file of added) {
    const hash = file.after.blob_hash.toString("hex");
    byContent.set(hash, [...(byContent.get(hash) ?? []), file]);
  }
  const used = new Set<string>();
  const take = (from: Deleted, isFit: (to: Added) => boolean) => {
    const candidates = byContent.get(from.before.blob_hash.toString("hex")) ?? [];
    const to = candidates.find((candidate) => !used.has(candidate.path) && isFit(candidate));
    if (to === undefined) return;
    used.add(to.path);
    renames.set(from.path, to.path);
  };
  for (const from of deleted) take(from, (to) => nameOf(to.path) === nameOf(from.path));
  for (const from of deleted) if (!renames.has(from.path)) take(from, () => true);
  return {
    deleted: deleted.filter(({ path }) => !renames.has(path)),
    added: added.filter(({ path }) => !used.has(path)),
  };
}

interface Chunked {
  /** How many bytes each chunk makes up of the content. */
  readonly parts: ReadonlyMap<string, number>;
  /** All of them together. */
  readonly weight: number;
}
/** Contents in chunks, by the hex of their hash. */
type Chunks = ReadonlyMap<string, Chunked>;

async function readChunks(db: Db, deleted: readonly Deleted[], added: readonly Added[]): Promise<Chunks> {
  const wanted = new Map<string, FileVersion>();
  let total = 0;
  for (const version of [...deleted.map(({ before }) => before), ...added.map(({ after }) => after)]) {
    const name = version.blob_hash.toString("hex");
    if (version.size > MAX_COMPARED_BYTES || wanted.has(name)) continue;
    total += version.size;
    if (total > MAX_READ_BYTES) break;
    wanted.set(name, version);
  }
  const chunks = new Map<string, Chunked>();
  for (const batch of batches(wanted.values())) {
    const contents = await readBlobs(
      db,
      batch.map(({ blob_hash }) => blob_hash),
    );
    for (const [name, content] of contents) chunks.set(name, chunksOf(content));
  }
  return chunks;
}

/** Lines, or parts of long ones; how a line ends makes no difference. */
function chunksOf(content: Buffer): Chunked {
  const parts = new Map<string, number>();
  let weight = 0;
  for (const line of content.toString("latin1").split(/\r?\n/)) {
    for (let at = 0; at === 0 || at < line.length; at += MAX_CHUNK_CHARS) {
      const chunk = line.slice(at, at + MAX_CHUNK_CHARS);
      parts.set(chunk, (parts.get(chunk) ?? 0) + chunk.length + 1);
      weight += chunk.length + 1;
    }
  }
  return { parts, weight };
}

function pairSimilar(
  deleted: readonly Deleted[],
  added: readonly Added[],
  chunks: Chunks,
  renames: Map<string, string>,
): void {
  const pairs: { from: string; to: string; score: number; sameName: boolean }[] = [];
  let lookups = 0;
  for (const { path: from, before } of deleted) {
    const was = chunks.get(before.blob_hash.toString("hex"));
    if (was === undefined) continue;
    for (const { path: to, after } of added) {
      const is = chunks.get(after.blob_hash.toString("hex"));
      if (is === undefined || !areSizesNear(before.size, after.size)) continue;
      lookups += Math.min(was.parts.size, is.parts.size) + 1;
      if (lookups > MAX_LOOKUPS) break;
      const score = similarity(was, is);
      if (score >= MIN_SIMILARITY) pairs.push({ from, to, score, sameName: nameOf(from) === nameOf(to) });
    }
  }
  pairs.sort((one, other) => other.score - one.score || Number(other.sameName) - Number(one.sameName));
  const used = new Set<string>();
  for (const { from, to } of pairs) {
    if (renames.has(from) || used.has(to)) continue;
    renames.set(from, to);
    used.add(to);
  }
}

function areSizesNear(one: number, other: number): boolean {
  return Math.min(one, other) >= Math.max(one, other) * MIN_SIMILARITY;
}

/** Bytes two contents have in common as a share of the larger. */
function similarity(one: Chunked, other: Chunked): number {
  const [few, many] = one.parts.size <= other.parts.size ? [one, other] : [other, one];
  let common = 0;
  for (const [chunk, size] of few.parts) common += Math.min(size, many.parts.get(chunk) ?? 0);
  return common / Math.max(one.weight, other.weight);
}

/** The last name of a path. */
function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
