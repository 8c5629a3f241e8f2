import { posix } from "node:path";
import type { GuestCommand, GuestFile, MicroImageName } from "./driver.ts";
import { checkNumber, refuse } from "./settings.ts";

const MIB = 1024 * 1024;
const HOME = "/work";
/** Node and Python load slowly where every instruction is translated. */
const DEFAULT_TIMEOUT_MS = 60_000;
const MAX_TIMEOUT_MS = 24 * 3_600_000;
const DEFAULT_OUTPUT_BYTES = 4 * MIB;
const MAX_OUTPUT_BYTES = 256 * MIB;
const DEFAULT_PROCESSES = 64;
const MAX_PROCESSES = 1024;
const MAX_FILES = 1000;
const MAX_FILES_BYTES = 64 * MIB;

/** What runs in a machine: `code` of its image's language, or the program `argv`. One of the two. */
export interface ExecuteRequest {
  code?: string;
  argv?: readonly string[];
  /** Arguments of `code`. */
  args?: readonly string[];
  /** Path in `/work` -> content; written before the start, and kept for later ones. */
  files?: Readonly<Record<string, string | Uint8Array>>;
  env?: Readonly<Record<string, string>>;
  stdin?: string | Uint8Array;
  /** Default 60 s. */
  timeoutMs?: number;
  /** Default 4 MiB. */
  outputBytes?: number;
  /** Processes and threads at once; default 64. */
  processes?: number;
  signal?: AbortSignal;
  onOutput?: (stream: "stdout" | "stderr", data: Buffer) => void;
}

const INTERPRETERS: Record<MicroImageName, { program: string; extension: string }> = {
  node: { program: "node", extension: "js" },
  python: { program: "python3", extension: "py" },
};

function fileOf(path: string, content: string | Uint8Array): GuestFile {
  const absolute = posix.resolve(HOME, path);
  if (!absolute.startsWith(`${HOME}/`) || path.includes("\0") || path.endsWith("/")) {
    refuse(`${JSON.stringify(path)} is not a file in ${HOME}.`, "Give a path like `src/main.js`.");
  }
  return { path: absolute, data: Buffer.from(content) };
}

function checkTexts(what: string, texts: readonly string[]): void {
  for (const text of texts) {
    if (typeof text !== "string" || text.includes("\0"))
      refuse(`${what} holds what is no text.`, "No NUL bytes.");
  }
}

/** What to do in the guest; `number` tells the scripts of one machine apart. Throws AppError InvalidParams. */
export function commandOf(request: ExecuteRequest, image: MicroImageName, number: number): GuestCommand {
  const { code, argv, args = [], env = {}, stdin, signal, onOutput } = request;
  if ((code === undefined) === (argv === undefined)) {
    refuse(
      "Exactly one of code and argv says what to run.",
      `code is run by ${INTERPRETERS[image].program}.`,
    );
  }
  if (argv !== undefined && (argv[0] === undefined || argv[0] === "")) {
    refuse("There is no program to run.", "argv[0] names it.");
  }
  checkTexts("The command", [...(argv ?? []), ...args]);
  checkTexts("The environment", Object.values(env));
  for (const name of Object.keys(env)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
      refuse(`${JSON.stringify(name)} names no variable.`, "As in a shell.");
  }
  const files = Object.entries(request.files ?? {}).map(([path, content]) => fileOf(path, content));
  let command = argv;
  if (code !== undefined) {
    const { program, extension } = INTERPRETERS[image];
    // A file, not an argument: no limit of length, and imports find what lies beside it.
    const script = fileOf(`.script-${number}.${extension}`, code);
    files.push(script);
    command = [program, script.path, ...args];
  }
  const bytes = files.reduce((sum, { data }) => sum + data.length, 0);
  checkNumber("The number of files", files.length, 0, MAX_FILES);
  checkNumber("The size of all files", bytes, 0, MAX_FILES_BYTES);
  return {
    argv: command ?? [],
    env,
    files,
    timeoutMs: checkNumber("timeoutMs", request.timeoutMs ?? DEFAULT_TIMEOUT_MS, 1, MAX_TIMEOUT_MS),
    outputBytes: checkNumber("outputBytes", request.outputBytes ?? DEFAULT_OUTPUT_BYTES, 1, MAX_OUTPUT_BYTES),
    processes: checkNumber("processes", request.processes ?? DEFAULT_PROCESSES, 1, MAX_PROCESSES),
    ...(stdin === undefined ? {} : { stdin: Buffer.from(stdin) }),
    ...(signal === undefined ? {} : { signal }),
    ...(onOutput === undefined ? {} : { onOutput }),
  };
}
