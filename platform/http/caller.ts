import type { FastifyRequest } from "fastify";
import { AppError, ROLES, type Role } from "#schemas";
import type { Authenticator, Caller } from "../authenticate.ts";
import type { TokenBuckets } from "../token-bucket.ts";

/**
 * Who sends this request; counts against that user's rate. A task's token is refused: it is for models only.
 * @throws AppError Unauthenticated, RateLimited, or Forbidden when `role` is more than the caller has.
 */
export type RequireCaller = (request: FastifyRequest, role?: Role) => Promise<Caller>;

export function createRequireCaller(options: {
  authenticate: Authenticator;
  perUser?: TokenBuckets | undefined;
}): RequireCaller {
  return async (request, role = "viewer") => {
    const caller = await options.authenticate(bearerOf(request.headers.authorization));
    if (caller.via === "task") {
      throw new AppError("Unauthenticated", "A task's token is of no use here.", {
        hint: "Use an access token or an API key.",
      });
    }
    options.perUser?.takeOrThrow(caller.user_id);
    requireRole(caller, role);
    return caller;
  };
}

/** @throws AppError Forbidden when the caller's role is less than `role`. */
export function requireRole(caller: Pick<Caller, "role">, role: Role): void {
  if (ROLES.indexOf(caller.role) >= ROLES.indexOf(role)) return;
  throw new AppError("Forbidden", `This needs the role ${role}.`, {
    hint: `Your role is ${caller.role}; an administrator can change it.`,
  });
}

/** The token of `Authorization: Bearer <token>`, or undefined for anything else. */
export function bearerOf(authorization: string | undefined): string | undefined {
  return /^bearer +([^\s]+) *$/i.exec(authorization ?? "")?.[1];
}
