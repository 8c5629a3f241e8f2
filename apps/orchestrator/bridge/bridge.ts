import { chmod, chown, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type Dispatcher, request } from "undici";
import { asObject, parseForeignJson } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import { AppError, type TaskError } from "#schemas";
import { FINAL_ERROR, fromErrorAnswer, fromThrown, modelError } from "./model-error.ts";
import { relayAnswer } from "./relay.ts";

const MAX_ERROR_BYTES = 64 * 1024;
const MAX_OPEN_CALLS = 8;
const MAX_CONNECTIONS = 32;

export interface BridgeOptions {
  /** Where the sandbox's end finds us; its directory must be closed to everybody else. */
  readonly socketPath: string;
  /** Who may connect besides us; null = the sandbox runs under our own uid. */
  readonly owner: { readonly uid: number; readonly gid: number } | null;
  /** The model server's OpenAI base, as in `http://127.0.0.1:6988/v1`. */
  readonly llmUrl: string;
  readonly dispatcher: Dispatcher;
  readonly maxBodyBytes: number;
  readonly maxModelCalls: number;
  readonly maxOutputTokens: number;
  readonly flushMs: number;
  /** Longest wait for one answer's first or next byte, ms; a run's own watchdogs strike before it. */
  readonly upstreamTimeoutMs: number;
  readonly log: Log;
}

export interface BridgeTask {
  /** Speaks for this task at the model server; never seen inside the sandbox. */
  readonly token: string;
  readonly model: string;
  /** The model was asked or said something. */
  onActivity(): void;
  /** Passed before every call; throws what the task was ended with. */
  gate(): Promise<void>;
}

/** One task's use of the bridge. */
export class BridgeRun {
  readonly task: BridgeTask;
  readonly abort = new AbortController();
  calls = 0;
  openCalls = 0;
  /** Why the last answer ended, by the model's own word: `stop`, `tool_calls`, `length` ... */
  lastFinish: string | undefined;
  /** What the last call failed with, unless a later one went well. */
  error: TaskError | undefined;
  /** When the first call was passed on, ms of `performance.now()`. */
  firstCallAt: number | undefined;

  constructor(task: BridgeTask) {
    this.task = task;
  }
}

/**
 * The only way out of a sandbox: a unix socket that answers model calls of the task that runs in it at present,
 * and refuses everything else. The task's token, model and limits are put in here, whatever the sandbox sends.
 * Every upstream failure answers 400, which opencode takes as final instead of trying for minutes.
 */
export class ModelBridge implements AsyncDisposable {
  readonly #options: BridgeOptions;
  readonly #server: Server;
  #run: BridgeRun | undefined;

  private constructor(options: BridgeOptions) {
    this.#options = options;
    this.#server = createServer(
      { maxHeaderSize: 16 * 1024, requestTimeout: 60_000 },
      (incoming, response) => {
        this.#serve(incoming, response).catch((error: unknown) => this.#failed(response, error));
      },
    );
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#server.headersTimeout = 10_000;
  }

  /** Listen. @throws the system's error when the socket cannot be made. */
  static async open(options: BridgeOptions): Promise<ModelBridge> {
    const bridge = new ModelBridge(options);
    await rm(options.socketPath, { force: true });
    await listen(bridge.#server, options.socketPath);
    await chmod(options.socketPath, 0o600);
    if (options.owner !== null) await chown(options.socketPath, options.owner.uid, options.owner.gid);
    return bridge;
  }

  /** Let the sandbox call for this task until `end`. */
  begin(task: BridgeTask): BridgeRun {
    if (this.#run !== undefined) throw new AppError("InternalError", "The sandbox already has a task.");
    this.#run = new BridgeRun(task);
    return this.#run;
  }

  /** End the present task's calls, also those under way. */
  end(): void {
    this.#run?.abort.abort();
    this.#run = undefined;
  }

  async close(): Promise<void> {
    this.end();
    this.#server.closeAllConnections();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#options.socketPath, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const route = `${incoming.method} ${(incoming.url ?? "").split("?")[0]}`;
    const run = this.#run;
    if (run === undefined) return refuse(response, 403, "No task is running in this sandbox.");
    if (route === "GET /v1/models") {
      const data = [{ id: run.task.model, object: "model", created: 0, owned_by: "cyberdevstudio" }];
      return answer(response, 200, { object: "list", data });
    }
    if (route !== "POST /v1/chat/completions") return refuse(response, 404, "There is nothing else here.");
    const body = await readBody(incoming, this.#options.maxBodyBytes);
    if (body === undefined) return refuse(response, 413, "The request is too large for a model call.");
    const fields = parseObject(body);
    if (fields === undefined) return refuse(response, 400, "The request is not a JSON object.");
    await run.task.gate();
    const over = this.#overLimit(run);
    if (over !== undefined) {
      run.error = over;
      return answer(response, 400, FINAL_ERROR);
    }
    run.calls += 1;
    run.openCalls += 1;
    try {
      await this.#call(run, fields, response);
    } finally {
      run.openCalls -= 1;
    }
  }

  #overLimit(run: BridgeRun): TaskError | undefined {
    const { maxModelCalls } = this.#options;
    if (run.openCalls >= MAX_OPEN_CALLS) return modelError("RateLimited", "Too many model calls at once.");
    if (run.calls < maxModelCalls) return undefined;
    return {
      code: "RunFailed",
      message: `The task has made all ${maxModelCalls} model calls it may make.`,
      hint: "Ask for less at a time, or raise CDS_MAX_MODEL_CALLS.",
    };
  }

  async #call(run: BridgeRun, fields: Record<string, unknown>, response: ServerResponse): Promise<void> {
    const { llmUrl, dispatcher, upstreamTimeoutMs, flushMs } = this.#options;
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    run.firstCallAt ??= performance.now();
    run.task.onActivity();
    try {
      const upstream = await request(`${llmUrl}/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${run.task.token}`, "content-type": "application/json" },
        body: JSON.stringify(this.#rewritten(fields, run.task.model)),
        signal: AbortSignal.any([gone.signal, run.abort.signal]),
        dispatcher,
        headersTimeout: upstreamTimeoutMs,
        bodyTimeout: upstreamTimeoutMs,
      });
      const ok = upstream.statusCode === 200;
      const streamed = String(upstream.headers["content-type"] ?? "").startsWith("text/event-stream");
      if (!ok || !streamed) {
        const limit = ok ? this.#options.maxBodyBytes : MAX_ERROR_BYTES;
        const text = (await readBody(upstream.body, limit)) ?? "";
        run.error = ok ? undefined : fromErrorAnswer(upstream.statusCode, text);
        if (run.error !== undefined) return answer(response, 400, FINAL_ERROR);
        return send(response, 200, text);
      }
      const onActivity = () => run.task.onActivity();
      const outcome = await relayAnswer(upstream.body, response, { flushMs, onActivity });
      if (gone.signal.aborted || run.abort.signal.aborted) return;
      run.error = outcome.error;
      run.lastFinish = outcome.finish ?? run.lastFinish;
    } catch (error) {
      if (gone.signal.aborted || run.abort.signal.aborted) return void response.destroy();
      this.#options.log.warn({ err: error }, "a model call did not get through");
      run.error = fromThrown(error, false);
      answer(response, 400, FINAL_ERROR);
    }
  }

  /** Whatever the sandbox asked for, it gets this task's model and no more output than configured. */
  #rewritten(fields: Record<string, unknown>, model: string): Record<string, unknown> {
    const { maxOutputTokens } = this.#options;
    const clamp = (value: unknown) =>
      typeof value === "number" && value >= 1 ? Math.min(value, maxOutputTokens) : maxOutputTokens;
    const { max_completion_tokens, max_tokens, n: _, ...rest } = fields;
    const limit =
      max_completion_tokens === undefined
        ? { max_tokens: clamp(max_tokens) }
        : { max_completion_tokens: clamp(max_completion_tokens) };
    return { ...rest, ...limit, model };
  }

  #failed(response: ServerResponse, error: unknown): void {
    this.#options.log.debug({ err: error }, "a request from a sandbox failed");
    if (response.headersSent) response.destroy();
    else refuse(response, 400, "The request failed.");
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
}

/** The body as text, or undefined when it is larger than allowed. */
async function readBody(body: AsyncIterable<Buffer | string>, maxBytes: number): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    const part = Buffer.from(chunk);
    bytes += part.length;
    if (bytes > maxBytes) return undefined;
    chunks.push(part);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    return asObject(parseForeignJson(text));
  } catch {
    return undefined;
  }
}

function refuse(response: ServerResponse, status: number, message: string): void {
  answer(response, status, { error: { message, type: "invalid_request_error", param: null, code: null } });
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  send(response, status, JSON.stringify(body));
}

/** Each connection serves one call: the bridge's helper inside must not outlive it (`sweep` would break it). */
function send(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { "content-type": "application/json", connection: "close" });
  response.end(text);
}
