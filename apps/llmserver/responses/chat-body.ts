import type { InputItem, Part } from "./input.ts";
import type { FunctionTool, ResponsesRequest, TextFormat } from "./request.ts";

type Json = Record<string, unknown>;
type Call = Extract<InputItem, { type: "function_call" }>;

/** One turn of the assistant: what it said, and the functions it called with it. */
interface Turn {
  texts: string[];
  calls: Call[];
}

/** A request as the body of a chat completion. */
export function toChatBody(request: ResponsesRequest): Record<string, unknown> {
  return defined({
    ...request.shared,
    model: request.model,
    stream: request.stream,
    messages: messagesOf(request),
    max_tokens: request.maxOutputTokens,
    ...toolsOf(request),
    response_format: responseFormat(request.format),
    verbosity: request.verbosity,
    reasoning_effort: request.effort,
    ...(request.logprobs === undefined
      ? {}
      : { logprobs: true, top_logprobs: request.logprobs || undefined }),
  });
}

/** Without what was left out: `null` and `undefined` are the same to a client, not to every provider. */
function defined(body: Json): Json {
  return Object.fromEntries(
    Object.entries(body).filter(([, value]) => value !== undefined && value !== null),
  );
}

/** Nothing is said of tools where there are none: OpenAI's chat refuses to hear how they are chosen. */
function toolsOf({ tools, toolChoice, parallelToolCalls }: ResponsesRequest): Json {
  if (tools.length === 0) return {};
  return {
    tools: tools.map(chatTool),
    tool_choice:
      typeof toolChoice === "object" ? { type: "function", function: { name: toolChoice.name } } : toolChoice,
    parallel_tool_calls: parallelToolCalls,
  };
}

function chatTool({ name, description, parameters, strict }: FunctionTool): Json {
  return { type: "function", function: defined({ name, description, parameters, strict }) };
}

function responseFormat(format: TextFormat): Json | undefined {
  if (format.type === "text") return undefined;
  if (format.type === "json_object") return { type: "json_object" };
  const { type, ...schema } = format;
  return { type, json_schema: defined(schema) };
}

/**
 * Items as messages. In a chat the calls of a turn are part of its one message, and their outputs follow at once: items
 * that stand together become one message, and outputs move up to it.
 */
function messagesOf({ instructions, items }: ResponsesRequest): Json[] {
  const messages: Json[] = instructions === undefined ? [] : [{ role: "system", content: instructions }];
  const outputs = outputsOf(items);
  let turn: Turn = { texts: [], calls: [] };
  const close = () => {
    messages.push(...turnMessages(turn, outputs));
    turn = { texts: [], calls: [] };
  };
  for (const item of items) {
    if (item.type === "function_call") turn.calls.push(item);
    else if (item.type === "function_call_output") close();
    else if (item.role !== "assistant") {
      close();
      messages.push({ role: item.role, content: item.content });
    } else {
      // Two texts with no call between them are two messages.
      if (turn.texts.length > 0 && turn.calls.length === 0) close();
      turn.texts.push(textOf(item.content));
    }
  }
  close();
  return messages;
}

/** What the functions gave back, by the id of the call, in the order of the calls where an id is used again. */
function outputsOf(items: readonly InputItem[]): Map<string, string[]> {
  const outputs = new Map<string, string[]>();
  for (const item of items) {
    if (item.type !== "function_call_output") continue;
    const known = outputs.get(item.call_id);
    if (known === undefined) outputs.set(item.call_id, [item.output]);
    else known.push(item.output);
  }
  return outputs;
}

function turnMessages({ texts, calls }: Turn, outputs: Map<string, string[]>): Json[] {
  if (calls.length === 0) return texts.map((content) => ({ role: "assistant", content }));
  const tool_calls = calls.map(({ call_id, name, arguments: args }) => ({
    id: call_id,
    type: "function",
    function: { name, arguments: args },
  }));
  return [
    { role: "assistant", content: texts.length === 0 ? null : texts.join(""), tool_calls },
    ...calls.map(({ call_id }) => ({
      role: "tool",
      tool_call_id: call_id,
      content: outputs.get(call_id)?.shift() ?? "",
    })),
  ];
}

function textOf(content: string | readonly Part[]): string {
  if (typeof content === "string") return content;
  return content.map((part) => (part.type === "text" ? part.text : "")).join("");
}
