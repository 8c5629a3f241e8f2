import type { FastifyRequest } from "fastify";
import { findUser } from "#database/accounts/users.ts";
import { getTask } from "#database/queue/read.ts";
import type { Db } from "#database/schema.ts";
import type { Authenticator, Caller } from "#platform/authenticate.ts";
import { bearerOf, requireRole } from "#platform/http/caller.ts";
import { type TaskTokens, tokenKind } from "#platform/tokens/index.ts";
import { AppError } from "#schemas";
import { ApiError } from "./api-error.ts";
import { HOP_HEADER } from "./remote/client.ts";

export interface AccessDeps {
  db: Db;
  authenticate: Authenticator;
  taskTokens: Pick<TaskTokens, "verify">;
}

/**
 * Who calls: by access token, API key, or the token of a task that runs at this moment.
 * @throws AppError Unauthenticated, Forbidden; ApiError when the request comes from this very gateway.
 */
export async function requireModelCaller(request: FastifyRequest, deps: AccessDeps): Promise<Caller> {
  if (request.headers[HOP_HEADER] !== undefined) {
    throw new ApiError(400, "The provider's base URL leads back to this server.", { code: "provider_loop" });
  }
  return modelCaller(bearerOf(request.headers.authorization), deps);
}

/** The same for a bearer that came another way. @throws AppError Unauthenticated, Forbidden. */
export async function modelCaller(bearer: string | undefined, deps: AccessDeps): Promise<Caller> {
  if (bearer !== undefined && tokenKind(bearer) === "task") return taskCaller(bearer, deps);
  const caller = await deps.authenticate(bearer);
  requireRole(caller, "developer");
  return caller;
}

/** A task token is worth something only while its attempt of its task runs. */
async function taskCaller(bearer: string, { db, taskTokens }: AccessDeps): Promise<Caller> {
  const { task_id, user_id, attempt } = await taskTokens.verify(bearer);
  const missing = (error: unknown) => {
    if (error instanceof AppError && error.code === "NotFound") return undefined;
    throw error;
  };
  const [task, user] = await Promise.all([
    getTask(db, task_id, user_id).catch(missing),
    findUser(db, user_id),
  ]);
  const alive = task?.state === "running" && task.attempt === attempt;
  if (!alive || user === undefined) {
    throw new AppError("Unauthenticated", "The task of this token does not run any more.");
  }
  return { user_id, username: user.username, role: user.role, via: "task", task: { task_id, attempt } };
}
