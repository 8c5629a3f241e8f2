/** A text as one word of a shell's command, whatever is in it. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A file's path as one word that no program takes for an option. */
export function quotedPath(path: string): string {
  return quoted(path.startsWith("-") ? `./${path}` : path);
}
