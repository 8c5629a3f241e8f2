import type { ProviderRoute } from "#database/accounts/provider-resolution.ts";
import { demoSource } from "../demo/source.ts";
import { localSource } from "../local/source.ts";
import type { ModelRequest } from "../requests/request.ts";
import type { LlmServer } from "../server.ts";
import { remoteSource } from "./remote-source.ts";
import type { Source } from "./source.ts";

export interface OpenOptions {
  request: ModelRequest;
  route: ProviderRoute;
  user_id: string;
  /** Ends the wait for a local model that is being loaded. */
  signal: AbortSignal;
}

/**
 * Who answers: the scripted model, a model of this machine, or a provider with the user's or the server's key.
 * @throws ApiError for what that one cannot do, before anything is charged.
 */
export async function openSource(
  { request, route, user_id, signal }: OpenOptions,
  llm: Pick<LlmServer, "remote" | "models">,
): Promise<Source> {
  switch (route.source) {
    case "demo":
      return demoSource(request);
    case "local":
      return localSource(request, llm.models, signal);
    case "user":
    case "server":
      return remoteSource(request, { ...route, trusted: route.source === "server" }, user_id, llm.remote);
  }
}
