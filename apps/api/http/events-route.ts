import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { getTask } from "#database/queue/index.ts";
import type { Caller } from "#platform/authenticate.ts";
import { bearerOf, parseInput } from "#platform/http/index.ts";
import { refuseTokenInUrl } from "#platform/http/websocket.ts";
import { idSchema, isTerminal, MAX_SEQ, type TaskEvent } from "#schemas";
import type { Api } from "../api.ts";

const seqSchema = z.coerce.number().int().min(0).max(MAX_SEQ);
const inputSchema = z.object({
  task_id: idSchema.refine((id) => !id.includes("\0") && id.isWellFormed(), "Not an id."),
  after_seq: seqSchema.default(0),
});

/** `GET /tasks/:task_id/events`: a task's log as server-sent events, ended by the server after `done`. */
export function registerEventsRoute(app: FastifyInstance, api: Api): void {
  const streams = new Set<EventStream>();
  app.addHook("preClose", async () => {
    for (const stream of streams) stream.end();
  });
  app.get("/tasks/:task_id/events", { exposeHeadRoute: false }, (request, reply) =>
    follow(api, streams, request, reply),
  );
}

async function follow(
  api: Api,
  streams: Set<EventStream>,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  refuseTokenInUrl(request.query);
  const bearer = bearerOf(request.headers.authorization);
  const caller = await api.gate.authenticate(bearer);
  api.gate.admit(caller, request.ip);
  const { task_id, after_seq } = readInput(request);
  const task = await getTask(api.database.db, task_id, caller.user_id);
  reply.header("cache-control", "no-store");
  // 204 tells an EventSource that came back after the end not to come again.
  if (isTerminal(task.state) && after_seq >= task.last_seq) return reply.code(204).send();
  const release = api.open.acquire(caller.user_id);
  const stream = new EventStream(api, {
    task_id,
    after_seq,
    stillAllowed: () => allowed(api, bearer, caller),
  });
  streams.add(stream);
  stream.once("close", () => {
    streams.delete(stream);
    release();
  });
  return reply.type("text/event-stream; charset=utf-8").header("x-accel-buffering", "no").send(stream);
}

/** `Last-Event-ID` is how an EventSource comes back, so it goes before the address it was first given. */
function readInput(request: FastifyRequest): { task_id: string; after_seq: number } {
  const { after_seq } = request.query as { after_seq?: unknown };
  const last = request.headers["last-event-id"];
  const given = last === undefined || last === "" ? after_seq : last;
  return parseInput(inputSchema, {
    ...(request.params as object),
    ...(given === undefined ? {} : { after_seq: given }),
  });
}

async function allowed(api: Api, bearer: string | undefined, caller: Caller): Promise<boolean> {
  const now = await api.gate.identify(bearer);
  return (
    now.error?.code !== "Unauthenticated" &&
    (now.caller === undefined || now.caller.user_id === caller.user_id)
  );
}

interface StreamOptions {
  readonly task_id: string;
  readonly after_seq: number;
  /** Asked with every heartbeat: a token may expire or be revoked meanwhile. */
  readonly stillAllowed: () => Promise<boolean>;
}

/** The log as bytes; reads on only when the peer has taken what it was given. */
class EventStream extends Readable {
  readonly #api: Api;
  readonly #options: StreamOptions;
  #stop: (() => void) | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #taken: (() => void) | undefined;
  #waitingSince = 0;
  #ended = false;

  constructor(api: Api, options: StreamOptions) {
    super({ highWaterMark: 64 * 1024 });
    this.#api = api;
    this.#options = options;
  }

  /** No more events: the answer ends properly, and the client may come back after its last id. */
  end(): void {
    if (this.#ended || this.destroyed) return;
    this.#ended = true;
    this.#release();
    this.push(null);
  }

  override _construct(callback: (error?: Error | null) => void): void {
    callback();
    this.push("retry: 2000\n\n");
    this.#heartbeat = setInterval(() => void this.#beat(), this.#api.heartbeatMs);
    const { task_id, after_seq } = this.#options;
    this.#stop = this.#api.feed.subscribe(
      task_id,
      after_seq,
      (events) => this.#give(events),
      () => this.end(),
    );
    if (this.#ended) this.#release();
  }

  override _read(): void {
    this.#taken?.();
    this.#taken = undefined;
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#ended = true;
    this.#release();
    callback(error);
  }

  async #give(events: readonly TaskEvent[]): Promise<void> {
    if (this.#ended) return;
    const text = events.map((event) => `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`).join("");
    if (this.push(text)) return;
    this.#waitingSince = performance.now();
    await new Promise<void>((resolve) => {
      this.#taken = resolve;
    });
  }

  /** A comment: proxies keep the connection, and a peer that has gone is noticed. */
  async #beat(): Promise<void> {
    if (!(await this.#options.stillAllowed())) this.end();
    if (this.#ended) return;
    if (this.#taken === undefined) this.push(": keep-alive\n\n");
    else if (performance.now() - this.#waitingSince > this.#api.timing.stuck) this.destroy();
  }

  #release(): void {
    clearInterval(this.#heartbeat);
    this.#stop?.();
    this.#taken?.();
  }
}
