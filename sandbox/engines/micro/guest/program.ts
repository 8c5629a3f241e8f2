import { constants } from "node:os";
import { AppError } from "#schemas";
import { type Exit, malformed, STDIN_WINDOW_BYTES } from "./protocol.ts";

export interface ExecRequest {
  argv: readonly string[];
  /** Added to the agent's defaults: PATH, HOME, USER, LOGNAME, TMPDIR, LANG, TZ. */
  env: Readonly<Record<string, string>>;
  /** By default `/work`. */
  cwd?: string;
  /** All of its standard input; without it there is none. */
  stdin?: Buffer;
  timeoutMs: number;
  /** Bytes of stdout and stderr together that are kept; the rest is dropped in the guest. */
  outputBytes: number;
  /** Processes and threads at once. */
  processes?: number;
  /** Memory of all its processes; by default what the machine has. */
  memoryBytes?: number;
  signal?: AbortSignal;
  /** Told each piece of output as it comes. */
  onOutput?: (stream: "stdout" | "stderr", data: Buffer) => void;
}

export interface ExecResult {
  stdout: Buffer;
  stderr: Buffer;
  /** null when a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
  truncated: boolean;
  /** The limit that probably ended it. */
  limit?: "memory" | "processes";
}

const SIGNALS = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));

/** One program in the guest, as the host sees it: what it was given, and what came out. */
export class Program {
  readonly result: Promise<ExecResult>;
  readonly #request: ExecRequest;
  readonly #send: (data: Buffer) => void;
  readonly #done = Promise.withResolvers<ExecResult>();
  readonly #kept: Record<"stdout" | "stderr", Buffer[]> = { stdout: [], stderr: [] };
  #left: number;
  #started = false;
  #given = 0;
  #unacknowledged = 0;
  #inputEnded: boolean;

  /** `send` gets pieces of input; an empty one is its end. */
  constructor(request: ExecRequest, send: (data: Buffer) => void) {
    this.#request = request;
    this.#send = send;
    this.#left = request.outputBytes;
    this.#inputEnded = request.stdin === undefined;
    this.result = this.#done.promise;
    // It may fail before anybody waits.
    this.result.catch(() => undefined);
  }

  started(): void {
    if (this.#started) throw malformed("one start too many");
    this.#started = true;
    this.#feed();
  }

  /** The program, or its end, took `bytes` of its input. */
  taken(bytes: number): void {
    if (bytes < 1 || bytes > this.#unacknowledged) throw malformed("thanks for input it was not given");
    this.#unacknowledged -= bytes;
    this.#feed();
  }

  output(stream: "stdout" | "stderr", data: Buffer): void {
    if (!this.#started || data.length === 0 || data.length > this.#left)
      throw malformed("more output than was asked for");
    this.#left -= data.length;
    // A copy, for the piece may be a small part of a large buffer.
    const copy = Buffer.from(data);
    this.#kept[stream].push(copy);
    this.#request.onOutput?.(stream, copy);
  }

  exited(exit: Exit): void {
    if (!this.#started) throw malformed("the end of what has not begun");
    if (this.#request.signal?.aborted) this.fail(cancelled());
    else if (exit.timed_out === true) this.fail(timedOut(this.#request.timeoutMs));
    // When it has failed already, this changes nothing.
    this.#done.resolve({
      stdout: Buffer.concat(this.#kept.stdout),
      stderr: Buffer.concat(this.#kept.stderr),
      code: exit.code,
      signal: (SIGNALS.get(exit.signal ?? 0) ?? null) as NodeJS.Signals | null,
      truncated: exit.truncated === true,
      ...(exit.limit === undefined ? {} : { limit: exit.limit }),
    });
  }

  fail(error: AppError): void {
    this.#done.reject(error);
  }

  #feed(): void {
    const input = this.#request.stdin;
    if (input === undefined || this.#inputEnded) return;
    const end = Math.min(input.length, this.#given + STDIN_WINDOW_BYTES - this.#unacknowledged);
    if (end > this.#given) {
      this.#send(input.subarray(this.#given, end));
      this.#unacknowledged += end - this.#given;
      this.#given = end;
    }
    if (this.#given === input.length) {
      this.#inputEnded = true;
      this.#send(Buffer.alloc(0));
    }
  }
}

export function cancelled(): AppError {
  return new AppError("Cancelled", "The program was ended on request.");
}

function timedOut(ms: number): AppError {
  return new AppError("Timeout", `The program ran longer than ${ms} ms and was ended.`, {
    hint: "Allow it more time, or give it less to do.",
  });
}
