import type { LimitName } from "../types.ts";

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
}

export type ToLauncher =
  | { type: "hello"; socket: string; secret: string }
  | { type: "launch"; request: LaunchRequest }
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

const SECRET_BYTES = 64;
const ID_BYTES = 12;
/** What a stream says first, of fixed length so that its reader takes not a byte too many. */
export const HEADER_BYTES = SECRET_BYTES + ID_BYTES + 1;

/** `secret` is 64 hexadecimal digits; `fd` 0, 1 or 2. */
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
