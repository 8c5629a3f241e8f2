import type { Readable, Writable } from "node:stream";
import { asObject, parseForeignJson } from "#platform/json.ts";
import { AppError } from "#schemas";
import { LineReader } from "./line-reader.ts";

const METHOD_NOT_FOUND = -32601;
/** Requests of ours that wait for an answer. */
const MAX_PENDING = 64;
/** Some prompts' worth: a peer that asks and asks without reading the answers would fill our memory with them. */
const MAX_UNREAD_BYTES = 4 * 1024 * 1024;

/** The peer answered a request with an error, in its own words. */
export class AcpError extends Error {
  readonly code: number;
  readonly data: unknown;

  constructor(code: number, message: string, data: unknown) {
    super(message);
    this.name = "AcpError";
    this.code = code;
    this.data = data;
  }
}

export interface AcpHandlers {
  /** A `session/update` notification, as it came: the peer is not trusted. */
  onUpdate(sessionId: string, update: Record<string, unknown>): void;
  /** A line that was no message (or too long), at most once per line; for the log. */
  onGarbage?(what: string): void;
}

export interface AcpStreams {
  readonly stdin: Writable;
  readonly stdout: Readable;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/**
 * The Agent Client Protocol by hand: newline-delimited JSON-RPC 2.0 over a child's stdio, we being the client.
 * Permission requests are refused: every permission is decided in the agent's configuration.
 */
export class AcpClient {
  readonly #stdin: Writable;
  readonly #stdout: Readable;
  readonly #handlers: AcpHandlers;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #closed: AppError | undefined;

  constructor(streams: AcpStreams, handlers: AcpHandlers, maxLineBytes?: number) {
    this.#stdin = streams.stdin;
    this.#stdout = streams.stdout;
    this.#handlers = handlers;
    const lines = new LineReader({
      ...(maxLineBytes === undefined ? {} : { maxBytes: maxLineBytes }),
      onLine: (line) => this.#receive(line),
      onTooLong: (bytes) => handlers.onGarbage?.(`a line of more than ${bytes} bytes`),
    });
    streams.stdout.on("data", (chunk: Buffer) => lines.push(chunk));
    streams.stdout.on("end", () => this.close("The agent closed its output."));
    streams.stdout.on("error", () => this.close("The agent's output broke."));
    streams.stdin.on("error", () => this.close("The agent no longer reads."));
  }

  /**
   * Ask the peer. @throws AcpError when it answers with an error, AppError Timeout after `timeoutMs`,
   * AppError RunFailed when it goes away, whatever `signal` was aborted with.
   */
  request(method: string, params: object, timeoutMs: number, signal?: AbortSignal): Promise<unknown> {
    const closed = this.#closed;
    if (closed !== undefined) return Promise.reject(closed);
    if (signal?.aborted === true) return Promise.reject(signal.reason);
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new AppError("RunFailed", "Too many requests to the agent are open."));
    }
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
        this.#pending.delete(id);
      };
      const fail = (error: unknown) => {
        settle();
        reject(error);
      };
      const onAbort = () => fail(signal?.reason);
      const timer = setTimeout(
        () => fail(new AppError("Timeout", `The agent did not answer ${method} within ${timeoutMs} ms.`)),
        timeoutMs,
      );
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#pending.set(id, {
        resolve: (result) => {
          settle();
          resolve(result);
        },
        reject: fail,
      });
      this.#send({ id, method, params });
    });
  }

  /** Tell the peer; nothing comes back. */
  notify(method: string, params: object): void {
    this.#send({ method, params });
  }

  /** Stop reading for a while: the pipe fills and the peer waits. */
  pause(): void {
    this.#stdout.pause();
  }

  resume(): void {
    this.#stdout.resume();
  }

  /** Reject everything open and everything to come. Safe to call twice. */
  close(reason: string): void {
    if (this.#closed !== undefined) return;
    const error = new AppError("RunFailed", reason);
    this.#closed = error;
    for (const { reject } of [...this.#pending.values()]) reject(error);
  }

  #send(message: object): void {
    if (this.#closed !== undefined) return;
    this.#stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
    if (this.#stdin.writableLength > MAX_UNREAD_BYTES) this.close("The agent does not read what it is sent.");
  }

  /** Called by the stream itself, where an exception would end the server: what a line holds must not cause one. */
  #receive(line: string): void {
    try {
      this.#take(line);
    } catch (error) {
      this.#handlers.onGarbage?.(`a line that cannot be worked with: ${error}`);
    }
  }

  #take(line: string): void {
    const message = parseObject(line);
    if (message === undefined) {
      if (line.trim() !== "") this.#handlers.onGarbage?.(line.slice(0, 200));
      return;
    }
    if (typeof message.method === "string") this.#called(message.method, message);
    else this.#answered(message);
  }

  #answered(message: Record<string, unknown>): void {
    const pending = typeof message.id === "number" ? this.#pending.get(message.id) : undefined;
    if (pending === undefined) return;
    const error = asObject(message.error);
    if (error === undefined) {
      pending.resolve(message.result);
      return;
    }
    const code = typeof error.code === "number" ? error.code : -32603;
    const text = typeof error.message === "string" ? error.message : "The agent reported an error.";
    pending.reject(new AcpError(code, text, error.data));
  }

  #called(method: string, message: Record<string, unknown>): void {
    const params = asObject(message.params) ?? {};
    if (method === "session/update") {
      const update = asObject(params.update);
      if (update !== undefined && typeof params.sessionId === "string") {
        this.#handlers.onUpdate(params.sessionId, update);
      }
      return;
    }
    const { id } = message;
    if (typeof id !== "number" && typeof id !== "string") return;
    if (method === "session/request_permission") this.#send({ id, result: { outcome: refusal(params) } });
    else
      this.#send({
        id,
        error: { code: METHOD_NOT_FOUND, message: `Not supported: ${method.slice(0, 100)}` },
      });
  }
}

/** Choose the peer's own "no" where it offers one. */
function refusal(params: Record<string, unknown>): Record<string, unknown> {
  const options = Array.isArray(params.options) ? params.options.map(asObject) : [];
  const option =
    options.find((item) => item?.kind === "reject_once") ??
    options.find((item) => item?.kind === "reject_always");
  if (typeof option?.optionId !== "string") return { outcome: "cancelled" };
  return { outcome: "selected", optionId: option.optionId };
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    return asObject(parseForeignJson(line));
  } catch {
    return undefined;
  }
}
