import type { FastifyInstance } from "fastify";
import type { Api } from "./api.ts";
import { registerProjectArchives } from "./archives/index.ts";
import { registerEventsRoute } from "./http/events-route.ts";
import { registerRpcRoute } from "./http/rpc-route.ts";
import { registerSocketRoute } from "./ws/route.ts";

export { type Api, type ApiDeps, createApi } from "./api.ts";
export { Workbench } from "./workbench/workbench.ts";

/** Mount `/rpc`, `/ws`, `/tasks/:task_id/events` and a project's zip routes; on several origins with one `createApi`. */
export async function registerApi(app: FastifyInstance, api: Api): Promise<void> {
  await registerSocketRoute(app, api);
  await registerRpcRoute(app, api);
  registerEventsRoute(app, api);
  await registerProjectArchives(app, api);
}
