import type { FastifyInstance } from "fastify";
import type { Database } from "#database";
import type { AccountAuthenticator } from "#database/accounts/authenticator.ts";
import type { Sessions } from "#database/accounts/sessions.ts";
import type { Config } from "#platform/config/config.ts";
import { limitBodies, type RequireCaller } from "#platform/http/index.ts";
import type { Log } from "#platform/log.ts";
import { registerAccountRoutes } from "./routes/account.ts";
import { registerAdminRoutes } from "./routes/admin.ts";
import { registerPriceRoutes } from "./routes/prices.ts";
import { registerSessionRoutes } from "./routes/session.ts";

export interface AuthDeps {
  readonly database: Database;
  readonly config: Pick<Config, "auth" | "billing" | "limits">;
  readonly log: Log;
  readonly sessions: Sessions;
  readonly authenticator: AccountAuthenticator;
  readonly requireCaller: RequireCaller;
}

/** Accounts: registering, sessions, API keys, and their administration. */
export async function registerAuth(app: FastifyInstance, deps: AuthDeps): Promise<void> {
  await app.register((scope, _options, done) => {
    limitBodies(scope);
    // Tokens and balances must not stay in any cache on the way.
    scope.addHook("onSend", async (_request, reply) => {
      reply.header("cache-control", "no-store");
    });
    registerSessionRoutes(scope, deps);
    registerAccountRoutes(scope, deps);
    registerAdminRoutes(scope, deps);
    registerPriceRoutes(scope, deps);
    done();
  });
}
