import { countInput, mostInputTokens } from "../calls/count-input.ts";
import type { RemoteProviders } from "../remote/client.ts";
import type { ModelRequest } from "../requests/request.ts";
import { UPSTREAM_PATHS, upstreamBody } from "../requests/upstream.ts";
import type { Source } from "./source.ts";

export interface RemoteRoute {
  base_url: string;
  api_key: string;
  /** The operator's own provider, with the server's key. */
  trusted: boolean;
}

/** An OpenAI-compatible provider as a source of answers. */
export function remoteSource(
  request: ModelRequest,
  route: RemoteRoute,
  user_id: string,
  remote: RemoteProviders,
): Source {
  return {
    inputTokens: mostInputTokens(request),
    countInput: () => countInput(request),
    begin: ({ maxTokens, abort }) =>
      remote.post({
        ...route,
        path: UPSTREAM_PATHS[request.kind],
        user_id,
        abort,
        stream: request.stream,
        body: upstreamBody(request, maxTokens, route),
      }),
    [Symbol.dispose]() {},
  };
}
