import type { Message } from "../loop/model.ts";

/** Letters per token, as tokenizers of today's models cut code and prose; a little more tokens than they make. */
const ASCII_CHARS = 3.5;
const OTHER_CHARS = 1.5;
const WIDE_CHARS = 0.9;
/** From here on scripts without spaces: Chinese, Japanese, Korean, and emoji. */
const FIRST_WIDE = 0x2e80;
const MESSAGE_TOKENS = 4;
const CALL_TOKENS = 12;

/** About how many tokens a text is; rather too many than too few. */
export function estimateTokens(text: string): number {
  let [other, wide] = [0, 0];
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code >= FIRST_WIDE) wide += 1;
    else if (code >= 0x80) other += 1;
  }
  const ascii = text.length - other - wide;
  return Math.ceil(ascii / ASCII_CHARS + other / OTHER_CHARS + wide / WIDE_CHARS);
}

/** The same for a session's messages, their calls included. */
export function estimateMessages(messages: readonly Message[]): number {
  return messages.reduce((sum, message) => sum + messageTokens(message), 0);
}

function messageTokens(message: Message): number {
  const text = MESSAGE_TOKENS + estimateTokens(message.content ?? "");
  if (message.role !== "assistant") return text;
  return (message.tool_calls ?? []).reduce(
    (sum, { function: { name, arguments: fields } }) =>
      sum + CALL_TOKENS + estimateTokens(name) + estimateTokens(fields),
    text,
  );
}
