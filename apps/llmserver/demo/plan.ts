import type { ChatBody, ChatMessage } from "../requests/chat-request.ts";
import { farewell, note, type Script, type ToolResult } from "./scripts.ts";
import { textsFor } from "./texts.ts";
import { type DemoCall, Toolbox } from "./tools.ts";

/** What the scripted model answers: text, and perhaps one tool call. */
export interface DemoReply {
  text: string;
  call?: DemoCall;
}

const LONGEST_TITLE = 50;
const LONGEST_ECHO = 200;
const SAMPLE_TASK = /farewell|goodbye|abschied|verabschied/i;
const FAILED =
  /^\W*(error|failed|failure|could not|cannot|can't|invalid|unable|enoent|eacces|file not found|no such file|you must|the user (rejected|has)|permission|tool execution|unknown tool)/i;

/**
 * The next reply, from the conversation alone: what was said since the last prompt is replayed through the
 * script, so that every turn is said once and the end is always reached.
 */
export function planReply({ messages, tools }: Pick<ChatBody, "messages" | "tools">): DemoReply {
  const start = messages.findLastIndex(({ role }) => role === "user");
  const prompt = cleanPrompt(textOf(messages[start]));
  const texts = textsFor(prompt);
  const toolbox = new Toolbox(tools ?? []);
  if (toolbox.empty) {
    const wantsTitle = messages.some(
      ({ role, content }) => role !== "user" && /\btitle\b/i.test(textOf({ content })),
    );
    if (wantsTitle) return { text: title(prompt) };
    return { text: [texts.label, texts.noTools(prompt.slice(0, LONGEST_ECHO)), texts.needsKey].join(" ") };
  }
  const stage = { prompt, texts, tools: toolbox };
  const script: Script = SAMPLE_TASK.test(prompt) ? farewell(stage) : note(stage);
  let turn = script.next();
  for (const message of messages.slice(start + 1)) {
    if (message.role === "tool" && turn.done !== true) turn = script.next(resultOf(message));
  }
  return turn.done === true ? { text: turn.value } : { text: turn.value.say, call: turn.value.call };
}

function resultOf(message: ChatMessage): ToolResult {
  const text = textOf(message);
  return { text, failed: FAILED.test(text) };
}

function textOf(message: { content?: unknown } | undefined): string {
  const content = message?.content;
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map((part) => (typeof part?.text === "string" ? part.text : "")).join("\n");
}

/** Without what a runner puts around the words of a person. */
function cleanPrompt(text: string): string {
  return text.replace(/<system-reminder>[\s\S]*?<\/system-reminder>/g, "").trim();
}

function title(prompt: string): string {
  const words = prompt
    .replace(/^generate a title[^:\n]*:\s*/i, "")
    .replace(/["\s]+/g, " ")
    .trim();
  return `Demo: ${words}`.slice(0, LONGEST_TITLE).trim();
}
