/** What the server and the process that holds microsandbox's library say to each other, over Node's IPC channel. */

export interface StartOrder {
  op: "start";
  name: string;
  /** File system image of the root, with an ending that names its format. */
  rootfs: string;
  memoryMib: number;
  diskMib: number;
  cpus: number;
}

export interface ExecuteOrder {
  op: "execute";
  name: string;
  argv: string[];
  env: Record<string, string>;
  files: { path: string; data: Uint8Array }[];
  stdin: Uint8Array | undefined;
  timeoutMs: number;
  processes: number;
}

export type Order = StartOrder | ExecuteOrder | { op: "stop" | "ping" | "stats"; name: string };

export type ToHost = { id: number; order: Order } | { kill: number };

export interface Ended {
  code: number;
  timedOut: boolean;
}

export type FromHost =
  | { id: number; result: unknown }
  | { id: number; error: string }
  | { id: number; stream: "stdout" | "stderr"; data: Uint8Array };
