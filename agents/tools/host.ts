export interface ExecOptions {
  /** Then it is ended, ms. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Kept of the output: its beginning and its end. */
  readonly outputBytes?: number;
}

export interface ExecResult {
  /** Null when it was ended from outside. */
  readonly code: number | null;
  /** What it wrote, errors included, in the order it was written. */
  readonly output: string;
  /** Whether something was left out of it. */
  readonly truncated: boolean;
  readonly timedOut: boolean;
}

export interface HostEntry {
  readonly name: string;
  readonly kind: "file" | "directory";
}

/**
 * What tools work on. Paths are relative to the working directory, "" is the directory itself; none leads out of it,
 * and links are not followed. Throws AppError InvalidParams (path), NotFound, Forbidden (what is no plain file),
 * Conflict (file against directory), PayloadTooLarge; for commands those of the sandbox.
 */
export interface ToolHost {
  /** The working directory as commands see it, absolute. */
  readonly directory: string;
  read(path: string): Promise<Uint8Array>;
  /** At once or not at all, missing directories included. */
  write(path: string, content: Uint8Array): Promise<void>;
  remove(path: string): Promise<void>;
  /** Sorted by name. */
  list(path: string): Promise<readonly HostEntry[]>;
  /** Paths of files, sorted; ignored ones are left out. More than `maxFiles` are never told. */
  walk(limits: { readonly maxFiles: number }): Promise<readonly string[]>;
  /** Run a shell's command in the working directory; nothing it started is left afterwards. */
  exec(command: string, options: ExecOptions): Promise<ExecResult>;
}
