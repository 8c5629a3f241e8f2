import type { FastifyInstance } from "fastify";
import { createUser } from "#database/accounts/users.ts";
import { parseInput } from "#platform/http/index.ts";
import { hashPassword } from "#platform/password.ts";
import { AppError, credentialsSchema, loginSchema, refreshSchema } from "#schemas";
import type { AuthDeps } from "../register-auth.ts";

/** `/auth/register|login|refresh|logout`: answers a session, without being signed in. */
export function registerSessionRoutes(app: FastifyInstance, deps: AuthDeps): void {
  const { database, config, sessions } = deps;

  app.post("/auth/register", async (request) => {
    if (!config.auth.allowRegistration) {
      throw new AppError("Forbidden", "Registration is closed.", {
        hint: "Ask an administrator for an account.",
      });
    }
    const { username, password } = parseInput(credentialsSchema, request.body);
    sessions.admitRegistration(request.ip);
    const user = await createUser(database.db, {
      username,
      password_hash: await hashPassword(password),
      role: "developer",
      initial_balance: config.billing.initialBalance,
    });
    deps.log.info({ user_id: user.id }, "registered");
    return sessions.issue(user);
  });

  app.post("/auth/login", async (request) => {
    const credentials = parseInput(loginSchema, request.body);
    return sessions.issue(await sessions.checkPassword(credentials, request.ip));
  });

  app.post("/auth/refresh", async (request) => {
    const { refresh_token } = parseInput(refreshSchema, request.body);
    return sessions.refresh(refresh_token);
  });

  app.post("/auth/logout", async (request) => {
    const { refresh_token } = parseInput(refreshSchema, request.body);
    return { ended: await sessions.end(refresh_token) };
  });
}
