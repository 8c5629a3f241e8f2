import { sql } from "kysely";
import type { Db } from "../schema.ts";
import { currentVersions } from "./commit.ts";
import { findDirectoryRenames, movedWith } from "./directory-renames.ts";
import { directoriesAbove, rangeBelow } from "./paths.ts";
import { type BothSides, type Moves, type Placed, placeMoved, placeStraight } from "./placing.ts";
import { findRenames, type PathChange } from "./renames.ts";
import type { FileVersion } from "./types.ts";

/** Paths a project may have changed since a change's base for moves in it to be followed. */
const MAX_FOLLOWED_PATHS = 10_000;
/** Directories that are asked whether anything is left in them. */
const MAX_DIRECTORIES = 100;

export interface PresentVersion extends FileVersion {
  readonly revision: number;
}

export interface Placement {
  readonly placed: Placed[];
  /** What the project has now at every path that is placed, or comes from there. */
  readonly present: Map<string, PresentVersion>;
}

/** Where the files of a change made from `base_revision` go in the project as it is now (`head_revision`). */
export async function placeFiles(
  db: Db,
  place: { readonly project_id: string; readonly base_revision: number; readonly head_revision: number },
  theirs: readonly PathChange[],
): Promise<Placement> {
  const { project_id } = place;
  const present = await currentVersions(
    db,
    project_id,
    theirs.map(({ path }) => path),
  );
  const straight = () => ({ placed: placeStraight(theirs, lookUp(present)), present });
  if (place.head_revision <= place.base_revision) return straight();
  const ours = await changesSince(db, project_id, place.base_revision);
  if (ours === null) return straight();
  const theirsMoves = await movesOf(db, theirs, ours, (directories) =>
    leftByChange(db, place, theirs, directories),
  );
  const oursMoves = await movesOf(db, ours, theirs, (directories) =>
    directoriesWithFiles(db, project_id, directories),
  );
  if (oursMoves.files.size === 0 && theirsMoves.files.size === 0) return straight();
  for (const { path, after } of ours) if (after !== null) present.set(path, after);
  const targets = placesAfter(theirs, oursMoves).concat(placesAfter(ours, theirsMoves));
  for (const [path, version] of await currentVersions(db, project_id, targets)) present.set(path, version);
  const sides: BothSides = { ours, theirs, oursMoves, theirsMoves, present: lookUp(present) };
  return { placed: placeMoved(sides), present };
}

function lookUp(present: ReadonlyMap<string, PresentVersion>): (path: string) => FileVersion | null {
  return (path) => {
    const version = present.get(path);
    if (version === undefined) return null;
    const { blob_hash, size, executable } = version;
    return { blob_hash, size, executable };
  };
}

/** What a project's files became since a revision, null when they are too many to look through. */
async function changesSince(
  db: Db,
  projectId: string,
  revision: number,
): Promise<(PathChange & { readonly after: PresentVersion | null })[] | null> {
  const { rows } = await sql<{
    path: string;
    was_hash: Buffer | null;
    was_size: number;
    was_executable: boolean;
    blob_hash: Buffer | null;
    size: number;
    executable: boolean;
    revision: number;
  }>`
    SELECT touched.path, was.blob_hash AS was_hash, was.size AS was_size, was.executable AS was_executable,
      f.blob_hash, f.size, f.executable, f.revision
    FROM (
      SELECT DISTINCT path FROM revision_files WHERE project_id = ${projectId} AND revision > ${revision}
      LIMIT ${MAX_FOLLOWED_PATHS + 1}
    ) AS touched
    LEFT JOIN LATERAL (
      SELECT blob_hash, size, executable FROM revision_files
      WHERE project_id = ${projectId} AND path = touched.path AND revision <= ${revision}
      ORDER BY revision DESC LIMIT 1
    ) AS was ON true
    LEFT JOIN project_files f ON f.project_id = ${projectId} AND f.path = touched.path
    ORDER BY touched.path
  `.execute(db);
  if (rows.length > MAX_FOLLOWED_PATHS) return null;
  // Size and bit are null only where the content is.
  return rows.map(
    ({ path, was_hash, was_size, was_executable, blob_hash, size, executable, revision: at }) => ({
      path,
      before: was_hash && { blob_hash: was_hash, size: was_size, executable: was_executable },
      after: blob_hash && { blob_hash, size, executable, revision: at },
    }),
  );
}

/** What a side moved, as far as it matters to the other one. `left`: which directories still have files there. */
async function movesOf(
  db: Db,
  side: readonly PathChange[],
  other: readonly PathChange[],
  left: (directories: readonly string[]) => Promise<ReadonlySet<string>>,
): Promise<Moves> {
  if (!isMoveOfInterest(side, other)) return { files: new Map(), directories: new Map() };
  const files = await findRenames(db, side);
  const moved = findDirectoryRenames(files);
  const added = other.flatMap(({ path, before }) => (before === null ? directoriesAbove(path) : []));
  const wanted = [...new Set(added)].filter((directory) => moved.has(directory)).slice(0, MAX_DIRECTORIES);
  if (wanted.length === 0) return { files, directories: new Map() };
  const stays = await left(wanted);
  const gone = wanted.filter((directory) => !stays.has(directory));
  return { files, directories: new Map(gone.map((directory) => [directory, moved.get(directory) ?? ""])) };
}

/** Whether the other side did anything to files that a side deleted, or put files into directories it deleted from. */
function isMoveOfInterest(side: readonly PathChange[], other: readonly PathChange[]): boolean {
  const deleted = side.flatMap(({ path, after }) => (after === null ? [path] : []));
  const places = new Set([...deleted, ...deleted.flatMap(directoriesAbove)]);
  return other.some(
    ({ path, before }) =>
      places.has(path) || (before === null && directoriesAbove(path).some((above) => places.has(above))),
  );
}

/** Those of these directories that have files now. */
async function directoriesWithFiles(
  db: Db,
  projectId: string,
  directories: readonly string[],
): Promise<Set<string>> {
  const ranges = directories.map(rangeBelow);
  const { rows } = await sql<{ directory: string }>`
    SELECT wanted.directory
    FROM unnest(${directories}::text[], ${ranges.map((range) => range?.from)}::text[],
      ${ranges.map((range) => range?.to)}::text[]) AS wanted(directory, low, high)
    WHERE EXISTS (
      SELECT 1 FROM project_files f
      WHERE f.project_id = ${projectId} AND f.path >= wanted.low AND f.path < wanted.high
    )
  `.execute(db);
  return new Set(rows.map(({ directory }) => directory));
}

/** Those of these directories in which a change leaves files of its base, or to which it adds some. */
async function leftByChange(
  db: Db,
  { project_id, base_revision }: { readonly project_id: string; readonly base_revision: number },
  theirs: readonly PathChange[],
  directories: readonly string[],
): Promise<Set<string>> {
  const left = new Set(theirs.flatMap(({ path, after }) => (after === null ? [] : directoriesAbove(path))));
  const deleted = theirs.flatMap(({ path, after }) => (after === null ? [path] : []));
  const ranges = directories.map(rangeBelow);
  const { rows } = await sql<{ directory: string }>`
    SELECT wanted.directory
    FROM unnest(${directories}::text[], ${ranges.map((range) => range?.from)}::text[],
      ${ranges.map((range) => range?.to)}::text[]) AS wanted(directory, low, high)
    WHERE EXISTS (
      SELECT 1 FROM (
        SELECT DISTINCT ON (path) path, blob_hash FROM revision_files
        WHERE project_id = ${project_id} AND revision <= ${base_revision}
          AND path >= wanted.low AND path < wanted.high
        ORDER BY path, revision DESC
      ) AS was
      WHERE was.blob_hash IS NOT NULL AND was.path <> ALL(${deleted}::text[])
    )
  `.execute(db);
  for (const { directory } of rows) left.add(directory);
  return left;
}

/** Where new files would be once their directories have moved: paths nothing may stand at. */
function placesAfter(changes: readonly PathChange[], { directories }: Moves): string[] {
  return changes.flatMap(({ path }) => movedWith(path, directories)?.to ?? []);
}
