import type { WebSocket } from "ws";
import { z } from "zod";
import { parseInput, parseJson } from "#platform/http/bodies.ts";
import { closePolitely } from "#platform/http/websocket.ts";
import type { Log } from "#platform/log.ts";
import { modelCaller } from "../access.ts";
import { ApiError, type ErrorEnvelope, toApiError } from "../api-error.ts";
import { runCall } from "../calls/run-call.ts";
import { ENDPOINTS } from "../endpoints/index.ts";
import type { LlmServer } from "../server.ts";
import { SocketSink } from "./socket-sink.ts";

/** Requests in work on one connection. */
const MAX_IN_FLIGHT = 16;
const PING_MS = 30_000;
/** After a refusal nothing more is read for so long: what is refused costs its sender nothing, but us. */
const REFUSED_MS = 100;

const NAMES = ENDPOINTS.map(({ path }) => path.slice("/v1/".length));

const idSchema = z.string().min(1).max(64);
const messageSchema = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("request"),
    /** The caller's own: everything that answers this request has it. */
    id: idSchema,
    /** As in the path of the HTTP route. */
    endpoint: z.enum(NAMES).default("chat/completions"),
    body: z.looseObject({}),
  }),
  z.strictObject({ type: z.literal("cancel"), id: idSchema }),
]);

/** One connection: requests in, their events out, each marked with its request's id. */
export class StreamSocket {
  readonly #ws: WebSocket;
  readonly #llm: LlmServer;
  readonly #bearer: string | undefined;
  readonly #log: Log;
  readonly #calls = new Map<string, SocketSink>();
  readonly #pings: NodeJS.Timeout;
  #unanswered = false;
  /** Reasons why nothing is read; the first: nobody is heard, nor 16 MB of theirs parsed, before it is known who. */
  #holds = 1;

  constructor(ws: WebSocket, options: { llm: LlmServer; bearer: string | undefined; log: Log }) {
    this.#ws = ws;
    this.#llm = options.llm;
    this.#bearer = options.bearer;
    this.#log = options.log;
    ws.on("message", (data: Buffer) => void this.#receive(data));
    ws.on("pong", () => {
      this.#unanswered = false;
    });
    ws.on("error", (error) => this.#log.debug({ err: error }, "socket error"));
    ws.once("close", () => this.#closed());
    this.#pings = setInterval(() => this.#ping(), PING_MS);
    ws.pause();
  }

  /** Whoever it is may ask. */
  listen(): void {
    this.#release();
  }

  /** Close politely; a peer that does not answer is cut off after two seconds. */
  close(code: number, reason: string): void {
    closePolitely(this.#ws, code, reason);
  }

  async #receive(data: Buffer): Promise<void> {
    if (this.#ws.readyState !== this.#ws.OPEN) return;
    let id: string | undefined;
    try {
      const given = parseJson(data);
      id = idOf(given);
      const message = parseInput(messageSchema, given);
      if (message.type === "cancel") this.#calls.get(message.id)?.leave();
      else await this.#run(message.id, message.endpoint, message.body);
    } catch (error) {
      const known = toApiError(error);
      if (known.status === 500)
        this.#log.error({ err: known.options.cause ?? error }, "a model request failed");
      this.#tell(id, known.envelope());
    }
  }

  async #run(id: string, name: string, body: Record<string, unknown>): Promise<void> {
    if (this.#calls.has(id))
      throw new ApiError(409, `The request ${id} is in work already.`, { param: "id" });
    if (this.#calls.size >= MAX_IN_FLIGHT) {
      throw new ApiError(429, `This connection has ${MAX_IN_FLIGHT} requests in work already.`, {
        code: "rate_limit_exceeded",
        retryAfterSeconds: 1,
      });
    }
    const endpoint = ENDPOINTS.find(({ path }) => path === `/v1/${name}`);
    if (endpoint === undefined) throw new ApiError(404, `Unknown endpoint: ${name}.`, { param: "endpoint" });
    const { provider, run } = this.#llm.config;
    const sink = new SocketSink(this.#ws, id, provider.idleTimeoutMs);
    this.#calls.set(id, sink);
    try {
      // As the token says now: it may have been revoked since.
      const caller = await modelCaller(this.#bearer, this.#llm);
      this.#llm.perUser?.takeOrThrow(caller.user_id);
      this.#llm.limits.admit(caller);
      const asked = endpoint.open(streaming(name, body), run.maxOutputTokens);
      const text = await runCall({ ...asked, endpoint: endpoint.path, caller, sink }, this.#llm);
      if (text !== undefined) await sink.send([{ data: text }]);
      sink.finish();
    } finally {
      this.#calls.delete(id);
    }
  }

  /** A peer that does not read why it was refused is not heard again, and cut off in the end. */
  #tell(id: string | undefined, { error }: ErrorEnvelope): void {
    if (this.#ws.readyState !== this.#ws.OPEN) return;
    this.#holds += 1;
    this.#ws.pause();
    const stalled = setTimeout(() => this.#ws.terminate(), this.#llm.config.provider.idleTimeoutMs);
    this.#ws.send(JSON.stringify({ ...(id === undefined ? {} : { id }), type: "error", error }), () => {
      clearTimeout(stalled);
      setTimeout(() => this.#release(), REFUSED_MS).unref();
    });
  }

  #release(): void {
    this.#holds -= 1;
    if (this.#holds === 0) this.#ws.resume();
  }

  #ping(): void {
    if (this.#unanswered && this.#ws.bufferedAmount === 0) this.#ws.terminate();
    else {
      this.#unanswered = true;
      this.#ws.ping();
    }
  }

  #closed(): void {
    clearInterval(this.#pings);
    for (const sink of this.#calls.values()) sink.leave();
  }
}

/** Here everything streams that can, unless the request says otherwise. */
function streaming(name: string, body: Record<string, unknown>): Record<string, unknown> {
  return name === "embeddings" || body.stream !== undefined ? body : { ...body, stream: true };
}

function idOf(given: unknown): string | undefined {
  const parsed = z.looseObject({ id: idSchema }).safeParse(given);
  return parsed.success ? parsed.data.id : undefined;
}
