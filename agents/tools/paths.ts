import { ToolFailure } from "./tool.ts";

/**
 * A path as hosts take it, from one as models write them: relative to the working directory, or absolute and below it.
 * @throws ToolFailure for one that leads out of it.
 */
export function hostPath(path: string, directory: string): string {
  const inside =
    path === directory ? "" : path.startsWith(`${directory}/`) ? path.slice(directory.length) : path;
  if (inside === path && path.startsWith("/")) throw outside(path, directory);
  const names: string[] = [];
  for (const name of inside.split("/")) {
    if (name === "" || name === ".") continue;
    if (name !== "..") names.push(name);
    else if (names.pop() === undefined) throw outside(path, directory);
  }
  return names.join("/");
}

/** The same for watchers: a path that leads out is shown as it was written. */
export function shownPath(path: string, directory: string): string {
  try {
    return hostPath(path, directory) || ".";
  } catch {
    return path;
  }
}

function outside(path: string, directory: string): ToolFailure {
  return new ToolFailure(
    `${path} lies outside the working directory. Name a path relative to it, or one that begins with ${directory}/.`,
  );
}
