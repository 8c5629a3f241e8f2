import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { AppError, type ErrorCode } from "#schemas";
import { cancelled, type ExecRequest, type ExecResult, Program } from "./program.ts";
import {
  type Answer,
  encodeJson,
  encodeStdin,
  FILE_PIECE_BYTES,
  type Frame,
  FrameDecoder,
  malformed,
  NONCE_BYTES,
  type Said,
  syncFrame,
} from "./protocol.ts";

/** An emulated guest on a busy machine is slow, but not that slow. */
const ANSWER_MS = 30_000;
/** After a program's time or a kill: until the agent has told its end. */
const END_MS = 15_000;
const ENTROPY_BYTES = 64;
/** As many as the agent starts. */
const MAX_PROGRAMS = 32;
const MAX_TEXT = 300;
const MAX_ID = 0xffff_ffff;

const ERRNO_CODES: Record<string, ErrorCode> = {
  ENOENT: "NotFound",
  EACCES: "Forbidden",
  EPERM: "Forbidden",
  EROFS: "Forbidden",
  ELOOP: "Forbidden",
  ENOSPC: "QuotaExceeded",
  ENOMEM: "QuotaExceeded",
};

/** What the guest's machine uses; all of it together. */
export interface GuestStats {
  memoryBytes: number;
  cpuMs: number;
  processes: number;
  diskBytes: number;
  diskLimitBytes: number;
}

const ENDS = ["error", "end", "close"] as const;
const ignore = () => undefined;

interface Waiting {
  resolve: (answer: Answer) => void;
  reject: (error: AppError) => void;
  timer: NodeJS.Timeout;
}

/**
 * The host's end of a guest's agent. The stream is its own from `connect` on; the first thing that no agent says, a
 * time-out or the stream's end closes it, and everything that waits fails with that error. Order: connect, `prepare`,
 * then anything; after `freeze` only a new `connect`, be it on the same stream's successor or in a clone.
 */
export class AgentClient {
  /** Why it closed; resolves, never rejects. */
  readonly closed: Promise<AppError>;
  readonly #stream: Duplex;
  readonly #decoder: FrameDecoder;
  readonly #ready = Promise.withResolvers<number>();
  readonly #closing = Promise.withResolvers<AppError>();
  readonly #waiting = new Map<number, Waiting>();
  readonly #programs = new Map<number, Program>();
  readonly #onData = (chunk: Buffer) => this.#hear(chunk);
  readonly #onEnd = () => this.#end(gone());
  #nextId = 1;
  #isReady = false;
  #ended: AppError | undefined;

  private constructor(stream: Duplex, nonce: Buffer) {
    this.#stream = stream;
    this.#decoder = new FrameDecoder(nonce);
    this.closed = this.#closing.promise;
    this.#ready.promise.catch(() => undefined);
    stream.on("data", this.#onData);
    for (const event of ENDS) stream.on(event, this.#onEnd);
    // Of a stream that is left to a successor, somebody has to hear the errors.
    if (!stream.listeners("error").includes(ignore)) stream.on("error", ignore);
  }

  /**
   * Begin a conversation with an agent that may still be booting, or was talking to somebody else when its machine was
   * saved. Throws AppError Timeout after `readyMs`, Unavailable. The stream is destroyed then.
   */
  static async connect(stream: Duplex, { readyMs }: { readyMs: number }): Promise<AgentClient> {
    const nonce = randomBytes(NONCE_BYTES);
    const client = new AgentClient(stream, nonce);
    const timer = setTimeout(() => client.#end(late("starting", readyMs)), readyMs);
    stream.write(syncFrame(nonce));
    try {
      await client.#ready.promise;
      return client;
    } finally {
      clearTimeout(timer);
    }
  }

  async ping(ms = ANSWER_MS): Promise<void> {
    await this.#ask("ping", {}, ms);
  }

  /** Give the machine entropy of its own and the time; without it the agent does nothing else. */
  async prepare(options: { hostname?: string; diskBytes?: number } = {}, ms = ANSWER_MS): Promise<void> {
    const { hostname, diskBytes } = options;
    const facts = {
      entropy: randomBytes(ENTROPY_BYTES).toString("base64"),
      now_ms: Date.now(),
      ...(hostname === undefined ? {} : { hostname }),
      ...(diskBytes === undefined ? {} : { disk_bytes: diskBytes }),
    };
    await this.#ask("prepare", facts, ms);
  }

  /**
   * Run a program to its end; whatever it leaves running is ended with it. Throws AppError Timeout or Cancelled when it
   * was ended for that, InvalidParams when it cannot be started, QuotaExceeded beyond 32 at once, PayloadTooLarge.
   */
  async exec(request: ExecRequest): Promise<ExecResult> {
    if (this.#ended !== undefined) throw this.#ended;
    if (request.signal?.aborted) throw cancelled();
    if (this.#programs.size >= MAX_PROGRAMS) throw tooMany();
    const id = this.#newId();
    const { argv, env, cwd, stdin, timeoutMs, outputBytes, processes, memoryBytes } = request;
    const limits = {
      output_bytes: outputBytes,
      ...(processes === undefined ? {} : { processes }),
      ...(memoryBytes === undefined ? {} : { memory_bytes: memoryBytes }),
    };
    const facts = {
      argv,
      env,
      cwd: cwd ?? "/work",
      stdin: stdin !== undefined,
      timeout_ms: timeoutMs,
      limits,
    };
    const frame = encodeJson({ op: "exec", id, ...facts });
    const program = new Program(request, (data) => this.#stream.write(encodeStdin(id, data)));
    this.#programs.set(id, program);
    let overdue = this.#endUnlessStopped(timeoutMs + END_MS);
    const abort = () => {
      clearTimeout(overdue);
      overdue = this.#endUnlessStopped(END_MS);
      this.#ask("kill", { target: id }, END_MS).catch(() => undefined);
    };
    request.signal?.addEventListener("abort", abort, { once: true });
    try {
      this.#stream.write(frame);
      return await program.result;
    } finally {
      clearTimeout(overdue);
      request.signal?.removeEventListener("abort", abort);
    }
  }

  /** Make or replace a file, below `/work` unless the path is absolute; with the rights of the machine's user. */
  async write(path: string, data: Buffer, mode = 0o644): Promise<void> {
    for (let offset = 0; offset === 0 || offset < data.length; offset += FILE_PIECE_BYTES) {
      const piece = data.subarray(offset, offset + FILE_PIECE_BYTES).toString("base64");
      await this.#ask("write", { path, mode, offset, data: piece });
    }
  }

  /** A regular file's content. Throws AppError PayloadTooLarge when it is longer, NotFound, Forbidden. */
  async read(path: string, maxBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    let bytes = 0;
    for (;;) {
      const answer = await this.#ask("read", { path, offset: bytes, max_bytes: FILE_PIECE_BYTES });
      if (answer.data === undefined || answer.size === undefined)
        throw this.#refuse("a file without content");
      if (answer.size > maxBytes) throw tooLarge(path, maxBytes);
      const piece = Buffer.from(answer.data, "base64");
      if (piece.length > FILE_PIECE_BYTES) throw this.#refuse("more than was asked for");
      pieces.push(piece);
      bytes += piece.length;
      if (bytes > maxBytes) throw tooLarge(path, maxBytes);
      // Shorter than it was a moment ago is an end as well.
      if (piece.length === 0 || bytes >= answer.size) return Buffer.concat(pieces);
    }
  }

  async stats(ms = ANSWER_MS): Promise<GuestStats> {
    const answer = await this.#ask("stats", {}, ms);
    return {
      memoryBytes: answer.memory_bytes ?? 0,
      cpuMs: answer.cpu_ms ?? 0,
      processes: answer.processes ?? 0,
      diskBytes: answer.disk_bytes ?? 0,
      diskLimitBytes: answer.disk_limit_bytes ?? 0,
    };
  }

  /**
   * Make the machine ready to be saved: every program ends, caches are dropped, and the agent waits for the next
   * `connect`, in this machine or in a clone. This client closes.
   */
  async freeze(ms = ANSWER_MS): Promise<void> {
    await this.#ask("freeze", {}, ms);
    this.#end(gone(), false);
  }

  /** Leave: whatever runs fails as Unavailable, and the stream is destroyed. */
  close(): void {
    this.#end(gone());
  }

  #newId(): number {
    const id = this.#nextId;
    this.#nextId = id === MAX_ID ? 1 : id + 1;
    return id;
  }

  #ask(op: string, facts: object, ms = ANSWER_MS): Promise<Answer> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#newId();
    const frame = encodeJson({ op, id, ...facts });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#end(late(op, ms)), ms);
      this.#waiting.set(id, { resolve, reject, timer });
      this.#stream.write(frame);
    });
  }

  #hear(chunk: Buffer): void {
    if (this.#ended !== undefined) return;
    try {
      for (const frame of this.#decoder.push(chunk)) {
        this.#take(frame);
        if (this.#ended !== undefined) return;
      }
    } catch (error) {
      this.#end(error instanceof AppError ? error : malformed("what cannot be understood"));
    }
  }

  #take(frame: Frame): void {
    if (!this.#isReady) {
      if (frame.type !== "json" || !("event" in frame.message) || frame.message.event !== "ready") {
        throw malformed("something else than its version");
      }
      this.#isReady = true;
      this.#ready.resolve(frame.message.version);
    } else if (frame.type === "json") {
      this.#takeMessage(frame.message);
    } else {
      const program = this.#programs.get(frame.id);
      if (program === undefined) throw malformed("output of a program that does not run");
      program.output(frame.type, frame.data);
    }
  }

  #takeMessage(message: Said): void {
    if (!("id" in message))
      throw malformed(message.event === "error" ? plain(message.error) : "a second start");
    const { id } = message;
    const program = this.#programs.get(id);
    if (program === undefined) {
      if ("event" in message) throw malformed("news of a program that does not run");
      const waiting = this.#answered(id);
      if ("ok" in message) waiting.resolve(message);
      else waiting.reject(refused(message.error, message.errno));
      return;
    }
    if ("ok" in message) throw malformed("an answer nobody asked for");
    if ("error" in message) program.fail(refused(message.error, "EINVAL"));
    else if (message.event === "started") program.started();
    else if (message.event === "stdin") program.taken(message.bytes);
    else program.exited(message);
    if ("error" in message || message.event === "exit") this.#programs.delete(id);
  }

  #answered(id: number): Waiting {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw malformed("an answer nobody asked for");
    this.#waiting.delete(id);
    clearTimeout(waiting.timer);
    return waiting;
  }

  #refuse(what: string): AppError {
    const error = malformed(what);
    this.#end(error);
    return error;
  }

  #endUnlessStopped(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#end(late("ending a program", ms)), ms);
  }

  #end(error: AppError, destroy = true): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    this.#stream.off("data", this.#onData);
    for (const event of ENDS) this.#stream.off(event, this.#onEnd);
    if (destroy) this.#stream.destroy();
    this.#ready.reject(error);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
    for (const program of this.#programs.values()) program.fail(error);
    this.#programs.clear();
    this.#closing.resolve(error);
  }
}

/** A guest's words, made harmless: one short line. */
function plain(text: string): string {
  return text.replace(/[^\x20-\x7e\u00a1-\uffff]+/g, " ").slice(0, MAX_TEXT);
}

function refused(text: string, errno: string | null | undefined): AppError {
  return new AppError(
    ERRNO_CODES[errno ?? ""] ?? "InvalidParams",
    `In the virtual machine: ${plain(text)}.`,
    {
      hint: "See what the command names: programs, paths and limits are those inside the machine.",
    },
  );
}

function late(what: string, ms: number): AppError {
  return new AppError("Timeout", `The virtual machine's agent did not answer within ${ms} ms (${what}).`, {
    hint: "The machine was ended; the host may be overloaded. Start another one.",
  });
}

function gone(): AppError {
  return new AppError("Unavailable", "The connection to the virtual machine has ended.", {
    hint: "Start another machine.",
  });
}

function tooMany(): AppError {
  return new AppError("QuotaExceeded", `A virtual machine runs ${MAX_PROGRAMS} programs at once at most.`, {
    hint: "Wait until one of them has ended.",
  });
}

function tooLarge(path: string, maxBytes: number): AppError {
  return new AppError("PayloadTooLarge", `The file ${plain(path)} is longer than ${maxBytes} bytes.`, {
    hint: "Read a smaller file, or allow more.",
  });
}
