import type { FastifyInstance } from "fastify";
import { findUser, setApiKeyHash } from "#database/accounts/users.ts";
import { parseInput } from "#platform/http/index.ts";
import { hashToken, newApiKey } from "#platform/tokens/index.ts";
import { changePasswordSchema } from "#schemas";
import type { AuthDeps } from "../register-auth.ts";

/** What signed-in users do with their own account. */
export function registerAccountRoutes(app: FastifyInstance, deps: AuthDeps): void {
  const { database, sessions, authenticator, requireCaller } = deps;

  app.get("/auth/me", async (request) => {
    const { user_id: id, username, role } = await requireCaller(request);
    return { user: { id, username, role } };
  });

  /** Shown this once; it replaces the one before. */
  app.post("/auth/api-key/generate", async (request) => {
    const { user_id } = await requireCaller(request);
    const api_key = newApiKey();
    await setApiKeyHash(database.db, user_id, hashToken(api_key));
    authenticator.invalidate(user_id);
    deps.log.info({ user_id }, "API key made");
    return { api_key };
  });

  app.delete("/auth/api-key/revoke", async (request) => {
    const { user_id } = await requireCaller(request);
    const user = await findUser(database.db, user_id);
    const revoked = user?.api_key_hash != null;
    if (revoked) await setApiKeyHash(database.db, user_id, null);
    authenticator.invalidate(user_id);
    deps.log.info({ user_id, revoked }, "API key revoked");
    return { revoked };
  });

  /** Ends every session, also the caller's: the answer holds a new one. */
  app.post("/auth/password", async (request) => {
    const { user_id } = await requireCaller(request);
    const passwords = parseInput(changePasswordSchema, request.body);
    const session = await sessions.changePassword(user_id, passwords, request.ip);
    authenticator.invalidate(user_id);
    deps.log.info({ user_id }, "password changed");
    return session;
  });
}
