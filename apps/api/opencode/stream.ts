import { once } from "node:events";
import { PassThrough } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { DEMO_MODEL, usableModels } from "#database/accounts/provider-resolution.ts";
import { ensureProject } from "#database/projects/named.ts";
import { requestCancel } from "#database/queue/index.ts";
import type { Caller } from "#platform/authenticate.ts";
import { bearerOf, requireRole } from "#platform/http/index.ts";
import { refuseTokenInUrl } from "#platform/http/websocket.ts";
import type { Log } from "#platform/log.ts";
import { AppError, MAX_PROMPT_CHARS, type TaskEvent } from "#schemas";
import type { Context } from "../handler.ts";
import { agentHandlers } from "../methods/agent.ts";
import type { OpencodeRoutesDeps } from "./index.ts";
import { Transcript } from "./transcript.ts";

/** Where the changes of prompts that name no project wait for review. */
const PROJECT_NAME = "OpenCode";
/** Told while nothing happens, so that no proxy on the way gives the connection up. */
const QUEUE_LINE_MS = 10_000;

/**
 * `GET /opencode/stream?prompt=&model=`: one run as plain text while it happens. A client that goes away ends
 * its run (OC-7).
 */
export async function streamPrompt(
  deps: OpencodeRoutesDeps,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { api } = deps;
  refuseTokenInUrl(request.query);
  const caller = await api.gate.authenticate(bearerOf(request.headers.authorization));
  api.gate.admit(caller, request.ip);
  requireRole(caller, "developer");
  const { prompt, model } = readQuery(request.query);
  const release = api.open.acquire(caller.user_id);
  const gone = new AbortController();
  const output = new PassThrough({ highWaterMark: 64 * 1024 });
  output.once("close", () => {
    release();
    if (!output.writableEnded) gone.abort();
  });
  try {
    const context = contextOf(deps, caller, request.log as Log, gone.signal);
    const taskId = await start(context, prompt, model ?? (await firstModel(context)));
    relay(deps, { context, taskId, output });
  } catch (error) {
    output.destroy();
    throw error;
  }
  // Node keeps the headers back until the first byte of the body, which may be a queue away.
  setImmediate(() => {
    if (!reply.raw.destroyed) reply.raw.flushHeaders();
  });
  return reply
    .type("text/plain; charset=utf-8")
    .header("cache-control", "no-store")
    .header("x-accel-buffering", "no")
    .send(output);
}

function readQuery(query: unknown): { prompt: string; model: string | undefined } {
  const { prompt, model } = query as { prompt?: unknown; model?: unknown };
  if (typeof prompt !== "string" || prompt.trim() === "") {
    throw new AppError("InvalidParams", "Prompt ist erforderlich", {
      hint: "GET /opencode/stream?prompt=...&model=...",
      issues: [{ path: "prompt", message: "Prompt ist erforderlich" }],
    });
  }
  if (prompt.length > MAX_PROMPT_CHARS) {
    throw new AppError("PayloadTooLarge", `The prompt is longer than ${MAX_PROMPT_CHARS} characters.`);
  }
  return { prompt, model: typeof model === "string" && model !== "" ? model : undefined };
}

function contextOf(
  { api, secrets }: OpencodeRoutesDeps,
  caller: Caller,
  log: Log,
  signal: AbortSignal,
): Context {
  const { database, config, workbench } = api;
  return { caller, database, config, secrets, workbench, log, signal };
}

/** The first model that is one, else the scripted one. */
async function firstModel({ caller, database, config }: Context): Promise<string> {
  const { provider, billing } = config;
  const usable = await usableModels(database.db, { provider, billing, user_id: caller.user_id });
  return usable.find(({ id }) => id !== DEMO_MODEL)?.id ?? DEMO_MODEL;
}

async function start(context: Context, prompt: string, model: string): Promise<string> {
  const { caller, database, config } = context;
  const { id } = await ensureProject(database, {
    owner_id: caller.user_id,
    name: PROJECT_NAME,
    quota: config.quota,
  });
  const dispatched = await agentHandlers["agent.dispatch"](context, {
    agent: "CodeAgent",
    // This route is the CLI's own, whatever drives agents elsewhere.
    runner: "opencode",
    project_id: id,
    prompt,
    model,
    network: false,
    may_plan: false,
    agent_config: false,
    priority: 5,
  });
  return dispatched.task_id;
}

interface Relay {
  readonly context: Context;
  readonly taskId: string;
  readonly output: PassThrough;
}

/** Events in, text out, no faster than the client reads. */
function relay({ api }: OpencodeRoutesDeps, { context, taskId, output }: Relay): void {
  const { caller, database, log, signal } = context;
  const transcript = new Transcript(caller.username);
  const write = async (text: string): Promise<void> => {
    if (text === "" || output.destroyed || output.writableEnded) return;
    if (!output.write(text)) await once(output, "drain", { signal }).catch(() => undefined);
  };
  const tellPlace = async (): Promise<void> => {
    const { state, position, reason } = await agentHandlers["agent.status"](context, { task_id: taskId });
    if (state === "pending" && position !== undefined) await write(transcript.waiting(position, reason));
  };
  const tell = () => void tellPlace().catch(() => undefined);
  const timer = setInterval(tell, QUEUE_LINE_MS);
  const stop = api.feed.subscribe(
    taskId,
    0,
    async (events: readonly TaskEvent[]) => {
      for (const event of events) await write(transcript.next(event));
      if (transcript.started) clearInterval(timer);
    },
    (error) => {
      clearInterval(timer);
      if (error !== undefined) output.write(transcript.broken());
      output.end();
    },
  );
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    stop();
    requestCancel(database.db, { user_id: caller.user_id }, taskId).catch((error: unknown) =>
      log.warn({ err: error, task_id: taskId }, "a run whose client left could not be cancelled"),
    );
  });
}
