import { randomUUID } from "node:crypto";
import type { Dialect } from "../calls/dialect.ts";
import { parseChatRequest } from "../requests/chat-request.ts";
import type { ModelRequest } from "../requests/request.ts";
import { parseResponsesRequest, ResponseStream, toChatBody, toResponse } from "../responses/index.ts";

/** OpenAI's Responses: asked for as a chat, answered as a response; any model can do it that can chat. */
export function openResponses(
  body: unknown,
  maxOutputTokens: number,
): { request: ModelRequest; dialect: Dialect } {
  const asked = parseResponsesRequest(body);
  const parsed = parseChatRequest(toChatBody(asked), maxOutputTokens);
  // Under which name the limit is sent on depends on the provider.
  const { max_tokens: _, ...rest } = parsed.body;
  const request = { ...parsed, body: rest };
  const meta = {
    response_id: `resp_${randomUUID().replaceAll("-", "")}`,
    model: request.model,
    created: Math.floor(Date.now() / 1000),
  };
  const stream = new ResponseStream(asked, meta);
  let begun = false;
  const opening = () => {
    if (begun) return [];
    begun = true;
    return stream.start();
  };
  const dialect: Dialect = {
    event: (event) => [...opening(), ...stream.event(event)],
    end: (usage) => [...opening(), ...stream.end(usage)],
    fail(error) {
      const { message, type, code } = error.envelope().error;
      return [...opening(), ...stream.fail({ message, type, code })];
    },
    whole: (answer, _text, usage) => JSON.stringify(toResponse(asked, answer, meta, usage)),
  };
  return { request, dialect };
}
