import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Caller } from "#platform/authenticate.ts";
import { limitBodies, parseInput, type RequireCaller } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import {
  AppError,
  downloadModelSchema,
  loadModelSchema,
  localModelNameSchema,
  unloadModelSchema,
} from "#schemas";
import { ReplyStream } from "../calls/reply-stream.ts";
import type { LocalModels } from "../local/models.ts";

/** A reader of progress that takes nothing for so long is cut off, ms. */
const STALL_MS = 30_000;

export interface ModelAdminDeps {
  models: LocalModels;
  requireCaller: RequireCaller;
  log: Log;
  /** Model calls in work, whoever answers them. */
  activeCalls: () => number;
}

/** The models of this machine, for administrators only; each change is in the log with who made it. */
export function registerModelAdmin(app: FastifyInstance, deps: ModelAdminDeps): void {
  void app.register((scope, _options, done) => {
    limitBodies(scope);
    // Who calls is asked before the body is read.
    const admins = new WeakMap<FastifyRequest, Caller>();
    scope.addHook("onRequest", async (request) => {
      admins.set(request, await deps.requireCaller(request, "admin"));
    });
    const changed = (request: FastifyRequest, what: Record<string, unknown>) =>
      deps.log.info(
        { by: admins.get(request)?.user_id, ...what },
        "local models changed by an administrator",
      );
    addModelRoutes(scope, deps, changed);
    addDownloadRoutes(scope, deps, changed);
    done();
  });
}

/** Puts on record who did what. */
type Changed = (request: FastifyRequest, what: Record<string, unknown>) => void;

function addModelRoutes(
  app: FastifyInstance,
  { models, activeCalls }: ModelAdminDeps,
  changed: Changed,
): void {
  app.get("/admin/status", async () => ({
    uptime_seconds: Math.floor(process.uptime()),
    active_calls: activeCalls(),
    ...(await models.status()),
  }));

  app.get("/admin/models", async () => ({ models: await models.listModels() }));

  app.post("/admin/load", async (request) => {
    const { model_id, config } = parseInput(loadModelSchema, request.body);
    const model = await models.loadModel(model_id, config);
    changed(request, { loaded: model_id, config: model.config });
    return model;
  });

  app.post("/admin/unload", async (request) => {
    const { model_id } = parseInput(unloadModelSchema, request.body);
    const model = await models.unloadModel(model_id);
    changed(request, { unloaded: model_id });
    return model;
  });

  app.delete<{ Params: { name: string } }>("/admin/models/:name", async (request) => {
    const { name } = request.params;
    if (!localModelNameSchema.safeParse(name).success) {
      throw new AppError("ModelNotFound", "There is no such model on this machine.");
    }
    await models.removeModel(name);
    changed(request, { removed: name });
    return { removed: true };
  });
}

function addDownloadRoutes(app: FastifyInstance, { models }: ModelAdminDeps, changed: Changed): void {
  app.post("/admin/download", async (request, reply) => {
    const { huggingface_url, model_id } = parseInput(downloadModelSchema, request.body);
    const { id, ...download } = await models.downloadModel(huggingface_url, { model_id });
    changed(request, { download_id: id, url: huggingface_url, model_id: download.model_id });
    if (wantsEvents(request)) return sendProgress(reply, models, id);
    return reply.code(202).send({ download_id: id, ...download });
  });

  app.get("/admin/downloads", async () => ({ downloads: models.downloads() }));

  app.get<{ Params: { id: string } }>("/admin/downloads/:id/events", (request, reply) =>
    sendProgress(reply, models, request.params.id),
  );

  app.delete<{ Params: { id: string } }>("/admin/downloads/:id", async (request) => {
    const { id } = request.params;
    const download = await models.cancelDownload(id);
    changed(request, { cancelled: id });
    return download;
  });
}

function wantsEvents({ headers }: FastifyRequest): boolean {
  return /\btext\/event-stream\b/i.test(headers.accept ?? "");
}

/** Server-sent events: each one's data is the download as it is; after the last it is done, failed or cancelled. */
async function sendProgress(reply: FastifyReply, models: LocalModels, id: string): Promise<FastifyReply> {
  const left = new AbortController();
  const progress = models.watch(id, left.signal);
  const stream = new ReplyStream(reply, STALL_MS);
  using _ = stream.onGone(() => left.abort());
  for await (const view of progress) await stream.send([{ data: JSON.stringify(view) }]);
  stream.end();
  return reply;
}
