import type { LimitName, TerminalSize } from "../types.ts";

/** V8 flags that keep the launcher, and with it the cost of fork(2), small. */
export const NODE_FLAGS = ["--max-semi-space-size=1", "--max-old-space-size=64", "--no-warnings"];

/** One program to start: bubblewrap, or what wraps it. */
export interface LaunchRequest {
  id: number;
  file: string;
  args: string[];
  /** Bytes for the file descriptor of `bwrap --args`. */
  options: string;
  /** File with the system-call filter. */
  filter: string;
  uid: number | null;
  gid: number | null;
  /** Control-group files that must hold the process's pid before it can fork. */
  join: string[];
  /** Where no control group does it, the launcher watches over these itself. */
  watch: { memoryBytes: number; processes: number } | null;
  /** With a size, the program gets a terminal instead of three streams. */
  terminal: TerminalSize | null;
}

export type ToLauncher =
  | { type: "hello"; socket: string; secret: string }
  | { type: "launch"; request: LaunchRequest }
  | { type: "resize"; id: number; size: TerminalSize }
  | { type: "kill"; id: number };

export type FromLauncher =
  | { type: "ready"; pid: number; cgroup: string }
  | { type: "started"; id: number; pid: number; initPid: number }
  | { type: "failed"; id: number; message: string }
  | {
      type: "exit";
      id: number;
      code: number | null;
      signal: NodeJS.Signals | null;
      limit: LimitName | null;
    };

export interface TerminalRequest {
  id: number;
  size: TerminalSize;
  /** Who owns the program's end. */
  uid: number | null;
  gid: number | null;
}

/** Between the launcher and the keeper of terminals, see `keeper.ts`. */
export type ToKeeper =
  | { type: "hello"; socket: string; secret: string }
  | { type: "open"; request: TerminalRequest }
  /** The program holds its end: the keeper's own can be closed. */
  | { type: "held"; id: number }
  | { type: "resize"; id: number; size: TerminalSize }
  | { type: "close"; id: number };

/** `path` of the end the program gets. */
export type FromKeeper =
  | { type: "opened"; id: number; path: string }
  | { type: "failed"; id: number; message: string };

const SECRET_BYTES = 64;
const ID_BYTES = 12;
/** What a stream says first, of fixed length so that its reader takes not a byte too many. */
export const HEADER_BYTES = SECRET_BYTES + ID_BYTES + 1;

/** `secret` is 64 hexadecimal digits; `fd` 0, 1 or 2, or 0 alone for a terminal. */
export function streamHeader(secret: string, id: number, fd: number): string {
  return `${secret}${String(id).padStart(ID_BYTES, "0")}${fd}`;
}

export function readStreamHeader(header: string): { secret: string; id: number; fd: number } {
  return {
    secret: header.slice(0, SECRET_BYTES),
    id: Number(header.slice(SECRET_BYTES, SECRET_BYTES + ID_BYTES)),
    fd: Number(header.slice(-1)),
  };
}
