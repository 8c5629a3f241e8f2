import { AppError, MAX_PATH_BYTES } from "#schemas";

/** What a file system takes as one name; a longer one could not be written into a workspace. */
const MAX_SEGMENT_BYTES = 255;
// biome-ignore lint/suspicious/noControlCharactersInRegex: refusing them is the point.
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const DRIVE = /^[A-Za-z]:(\/|$)/;
/**
 * Also as Windows and macOS would understand it: git on such a machine would run the hooks in it. Their file systems
 * pass over spaces and dots at the end, streams behind a colon, and characters without width; and they have short names.
 */
const GIT_DIRECTORY = /^(\.git[ .]*(:.*)?|git~\d+)$/i;
const WITHOUT_WIDTH = /[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]/g;
const SHOWN_CHARS = 120;

/**
 * A file's path as the project stores it: relative, `/` between names, NFC, no empty or `.` names.
 * @throws AppError InvalidParams naming the path when it could lead out of the project, has control
 * characters or backslashes, names `.git`, or is too long.
 */
export function normalizePath(path: string): string {
  const normal = normalizeDirectory(path);
  if (normal === "") throw invalid(path, "names no file");
  return normal;
}

/** As `normalizePath`, for a directory: `.`, `/`-less emptiness and the like are the root, "". */
export function normalizeDirectory(path: string): string {
  if (!path.isWellFormed()) throw invalid(path, "is not valid Unicode");
  const normal = path.normalize("NFC");
  if (CONTROL.test(normal)) throw invalid(path, "has control characters in it");
  if (normal.includes("\\")) throw invalid(path, 'has a backslash in it; separate names with "/"');
  const names = normal.split("/").filter((name) => name !== "" && name !== ".");
  const joined = names.join("/");
  if (normal.startsWith("/") || DRIVE.test(joined)) {
    throw invalid(path, "is absolute; paths start at the project's root");
  }
  for (const name of names) {
    if (name === "..") throw invalid(path, 'leads upwards by ".."');
    if (GIT_DIRECTORY.test(name.replace(WITHOUT_WIDTH, "")))
      throw invalid(path, 'names ".git", which projects do not store');
    if (Buffer.byteLength(name) > MAX_SEGMENT_BYTES) {
      throw invalid(path, `has a name longer than ${MAX_SEGMENT_BYTES} bytes`);
    }
  }
  if (Buffer.byteLength(joined) > MAX_PATH_BYTES)
    throw invalid(path, `is longer than ${MAX_PATH_BYTES} bytes`);
  return joined;
}

/** Every directory above a normalised path, nearest last, without the root: `a/b/c` -> `a`, `a/b`. */
export function directoriesAbove(path: string): string[] {
  const above: string[] = [];
  for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) above.push(path.slice(0, at));
  return above;
}

/**
 * The half-open range [from, to) of paths that lie below a normalised directory in byte order
 * (`COLLATE "C"`): "0" is the character after "/". Null for the root, which has no bounds.
 */
export function rangeBelow(directory: string): { from: string; to: string } | null {
  return directory === "" ? null : { from: `${directory}/`, to: `${directory}0` };
}

/** A path for an error message: quoted, without control characters, not endless. */
export function showPath(path: string): string {
  const quoted = JSON.stringify(path.length > SHOWN_CHARS ? `${path.slice(0, SHOWN_CHARS)}…` : path);
  return quoted.replace(
    /[\u007f-\u009f]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function invalid(path: string, what: string): AppError {
  const message = `The path ${showPath(path)} ${what}.`;
  return new AppError("InvalidParams", message, { issues: [{ path: "path", message }] });
}
