export { toChatBody } from "./chat-body.ts";
export { parseResponsesRequest } from "./request.ts";
export { ResponseStream, toResponse } from "./response-stream.ts";
