import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { getOwnProject, readTree } from "#database/projects/index.ts";
import type { Caller } from "#platform/authenticate.ts";
import { bearerOf, parseInput, requireRole } from "#platform/http/index.ts";
import { refuseTokenInUrl } from "#platform/http/websocket.ts";
import { idSchema, type Role } from "#schemas";
import type { Api } from "../api.ts";
import { importArchive, withUpload } from "./import-archive.ts";
import { writeZip } from "./write-zip.ts";

/** What the routes need; `open` bounds what one user has under way at once. */
export type ArchiveDeps = Pick<Api, "database" | "config" | "gate" | "open">;

const ZIP_TYPES = ["application/zip", "application/x-zip-compressed", "application/octet-stream"];

const paramsSchema = z.object({
  id: idSchema.refine((id) => !id.includes("\0") && id.isWellFormed(), "Not an id."),
});
const exportSchema = z.object({ revision: z.coerce.number().int().min(0).max(2_147_483_647).optional() });
const importSchema = z.object({
  replace: z
    .enum(["0", "1", "true", "false"])
    .default("0")
    .transform((value) => value === "1" || value === "true"),
});

/**
 * `GET /projects/:id/export.zip?revision=` gives a project's files as a zip file;
 * `POST /projects/:id/import?replace=1` makes a zip file (the body) one revision of it.
 */
export async function registerProjectArchives(app: FastifyInstance, deps: ArchiveDeps): Promise<void> {
  await app.register((scope, _options, done) => {
    scope.removeAllContentTypeParsers();
    // Read by the handler, once it knows who sends it.
    scope.addContentTypeParser(ZIP_TYPES, (_request, payload, parsed) => parsed(null, payload));
    scope.get("/projects/:id/export.zip", { exposeHeadRoute: false }, (request, reply) =>
      exportProject(deps, request, reply),
    );
    scope.post("/projects/:id/import", { bodyLimit: deps.config.limits.archiveBytes }, (request, reply) =>
      importProject(deps, request, reply),
    );
    done();
  });
}

async function exportProject(
  deps: ArchiveDeps,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const caller = await admitted(deps, request, "viewer");
  const { id } = parseInput(paramsSchema, request.params);
  const { revision } = parseInput(exportSchema, request.query);
  const { db } = deps.database;
  const project = await getOwnProject(db, id, caller.user_id);
  const tree = await readTree(db, id, revision ?? project.head_revision);
  const release = deps.open.acquire(caller.user_id);
  const zip = writeZip(db, tree, project.updated_at);
  zip.once("close", release);
  return reply
    .type("application/zip")
    .header("cache-control", "no-store")
    .header("content-disposition", attachment(project.name))
    .send(zip);
}

async function importProject(
  deps: ArchiveDeps,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<{ revision: number; files: number }> {
  const body = request.body instanceof Readable ? request.body : Readable.from([]);
  try {
    const caller = await admitted(deps, request, "developer");
    const { id } = parseInput(paramsSchema, request.params);
    const { replace } = parseInput(importSchema, request.query);
    await getOwnProject(deps.database.db, id, caller.user_id);
    const { limits, quota, run } = deps.config;
    const release = deps.open.acquire(caller.user_id);
    try {
      return await withUpload(body, { limit: limits.archiveBytes, prefix: run.tempDirPrefix }, (path) =>
        importArchive(deps.database, path, { project_id: id, author: caller.username, replace, quota }),
      );
    } finally {
      release();
    }
  } catch (error) {
    // What was not read must not be taken for the next request on this connection.
    if (!body.readableEnded) reply.header("connection", "close");
    body.resume();
    throw error;
  }
}

/** @throws AppError Unauthenticated, RateLimited, Forbidden. */
async function admitted(deps: ArchiveDeps, request: FastifyRequest, role: Role): Promise<Caller> {
  refuseTokenInUrl(request.query);
  const caller = await deps.gate.authenticate(bearerOf(request.headers.authorization));
  deps.gate.admit(caller, request.ip);
  requireRole(caller, role);
  return caller;
}

/** A download's name (RFC 6266): plain for old programs, with every letter for the others. */
function attachment(name: string): string {
  const safe = name
    .replace(/[\p{C}/\\:*?"<>|]+/gu, "-")
    .slice(0, 100)
    .toWellFormed();
  const plain = safe.replace(/[^\x20-\x7e]|[%;']/g, "-");
  return `attachment; filename="${plain}.zip"; filename*=UTF-8''${encodeURIComponent(safe).replaceAll("'", "%27")}.zip`;
}
