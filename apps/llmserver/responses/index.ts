export { toChatBody } from "./chat-body.ts";
export { parseResponsesRequest, type ResponsesRequest } from "./request.ts";
export { ResponseStream, toResponse } from "./response-stream.ts";
