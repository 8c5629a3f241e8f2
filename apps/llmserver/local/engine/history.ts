import type { ChatHistoryItem, ChatModelFunctionCall, ChatModelResponse } from "node-llama-cpp";
import type { Message } from "../types.ts";
import { invalid } from "./refusal.ts";

/** Integers a JSON number cannot hold: a result with one stays the text it came as. */
const LONG_DIGITS = /\d{16,}/;

/** Calls the assistant made whose results have not come yet, by id. */
type OpenCalls = Map<string, ChatModelFunctionCall>;

/**
 * OpenAI's messages as the library's history: an assistant's turn, the calls in it and their results are one item. A last
 * message of the assistant is continued.
 * @throws Refusal 400 naming the message that cannot be taken.
 */
export function toHistory(messages: readonly Message[]): ChatHistoryItem[] {
  if (messages.length === 0) throw invalid("messages", "At least one message is needed.", "invalid_value");
  const history: ChatHistoryItem[] = [];
  const open: OpenCalls = new Map();
  messages.forEach((message, index) => {
    const path = `messages[${index}]`;
    if (message.role !== "tool") refuseUnanswered(open, path);
    switch (message.role) {
      case "system":
      case "developer":
        history.push({ type: "system", text: textOf(message.content, `${path}.content`) });
        break;
      case "user":
        history.push({ type: "user", text: textOf(message.content, `${path}.content`) });
        break;
      case "assistant":
        addAssistant(history, message, path, open);
        break;
      case "tool":
        addResult(message, path, open);
        break;
      default:
        throw invalid(
          `${path}.role`,
          `"${message.role}" is not known; system, developer, user, assistant and tool are.`,
        );
    }
  });
  refuseUnanswered(open, "messages");
  if (history.at(-1)?.type !== "model") history.push({ type: "model", response: [] });
  return history;
}

/** A model whose template loses a call would answer something else than was asked. */
function refuseUnanswered(open: OpenCalls, path: string): void {
  const [missing] = open.keys();
  if (missing === undefined) return;
  throw invalid(
    path,
    `The assistant's tool call "${missing}" must be followed by a message of role tool with its result.`,
    "invalid_value",
  );
}

function addAssistant(history: ChatHistoryItem[], message: Message, path: string, open: OpenCalls): void {
  const text = message.content == null ? "" : textOf(message.content, `${path}.content`);
  const calls = callsOf(message.tool_calls, `${path}.tool_calls`, open);
  const response: ChatModelResponse["response"] = [...(text === "" ? [] : [text]), ...calls];
  const [first] = calls;
  if (first !== undefined) first.startsNewChunk = true;
  const last = history.at(-1);
  // What is said after the results of a turn's calls belongs to that turn.
  if (last?.type === "model" && isCall(last.response.at(-1))) last.response.push(...response);
  else history.push({ type: "model", response });
}

function isCall(item: ChatModelResponse["response"][number] | undefined): item is ChatModelFunctionCall {
  return typeof item === "object" && item.type === "functionCall";
}

function callsOf(calls: unknown, path: string, open: OpenCalls): ChatModelFunctionCall[] {
  if (calls == null) return [];
  if (!Array.isArray(calls)) throw invalid(path, "A list of calls is expected.", "invalid_type");
  return calls.map((given: unknown, index) => {
    const call = given as { id?: unknown; function?: { name?: unknown; arguments?: unknown } } | null;
    const at = `${path}[${index}]`;
    const { name, arguments: text } = call?.function ?? {};
    if (typeof call?.id !== "string") throw invalid(`${at}.id`, "A text is expected.", "invalid_type");
    if (typeof name !== "string") throw invalid(`${at}.function.name`, "A text is expected.", "invalid_type");
    if (open.has(call.id)) throw invalid(`${at}.id`, `"${call.id}" is used twice.`, "invalid_value");
    const made: ChatModelFunctionCall = {
      type: "functionCall",
      name,
      params: argumentsOf(text, `${at}.function.arguments`),
      result: undefined,
    };
    open.set(call.id, made);
    return made;
  });
}

function argumentsOf(text: unknown, path: string): unknown {
  if (text === undefined || text === null || text === "") return {};
  if (typeof text !== "string") throw invalid(path, "JSON text is expected.", "invalid_type");
  try {
    return JSON.parse(text);
  } catch {
    throw invalid(path, "It is no valid JSON.", "invalid_value");
  }
}

function addResult(message: Message, path: string, open: OpenCalls): void {
  const id = message.tool_call_id;
  const call = typeof id === "string" ? open.get(id) : undefined;
  if (call === undefined || typeof id !== "string") {
    throw invalid(
      `${path}.tool_call_id`,
      "It names no call of the assistant's message before that still waits for its result.",
      "invalid_value",
    );
  }
  call.result = resultOf(textOf(message.content, `${path}.content`));
  open.delete(id);
}

/** Objects and lists are handed on as such, or the template would quote them a second time. */
function resultOf(text: string): unknown {
  if (!/^\s*[[{]/.test(text) || LONG_DIGITS.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** @throws Refusal 400 for what is not text: local models read nothing else. */
function textOf(content: unknown, path: string): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content))
    throw invalid(path, "A text or a list of text parts is expected.", "invalid_type");
  return content
    .map((given: unknown) => {
      const part = given as { type?: unknown; text?: unknown; refusal?: unknown } | null;
      const text = part?.type === "refusal" ? part.refusal : part?.text;
      if ((part?.type === "text" || part?.type === "refusal") && typeof text === "string") return text;
      throw invalid(path, `Local models read text only, not parts of type "${String(part?.type)}".`);
    })
    .join("");
}
