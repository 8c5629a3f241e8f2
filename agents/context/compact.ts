import type { Message, ToolCall } from "../loop/model.ts";
import { shorten } from "../tools/text.ts";
import { isSummary, summarize } from "./summary.ts";
import { estimateMessages } from "./tokens.ts";

/** A compacted session is this much smaller than allowed: compacting at every step would cost the model's cache. */
const TARGET = 0.6;
/** Of the target, what the newest turns may take and stay as they are. */
const NEWEST = 0.5;
/** The same for the summary of older ones. */
const SUMMARY = 0.15;
/** Of an older output or a long field of an older call. */
const OLD_CHARS = 400;
/** A newest output is never made shorter than this. */
const MIN_OUTPUT_CHARS = 200;
/** `estimateTokens` counts no character as less than this, so that so many characters never are more tokens. */
const CHARS_PER_TOKEN = 0.9;

/** Messages that belong together: an answer and what came of its calls, or one word of the user. */
type Turn = readonly Message[];

/**
 * A session of no more than `maxTokens`, by the estimate, as far as that can be had: system prompt, task and the last
 * thing asked for stay, and the newest turns; older outputs are shortened, then older turns become a summary. A call is
 * never parted from its outcome. Pure; answers `messages` itself when it is small enough, and compacting what is
 * compacted changes nothing.
 */
export function compact(messages: readonly Message[], maxTokens: number): readonly Message[] {
  if (estimateMessages(messages) <= maxTokens) return messages;
  const target = Math.floor(maxTokens * TARGET);
  const { head, turns } = split(messages);
  const newest = newestTurns(turns, target * NEWEST);
  const older = turns.slice(0, newest).flat();
  const kept = turns.slice(newest).flat();
  const gentle = [...head, ...older.map(shortenMessage), ...kept];
  if (estimateMessages(gentle) <= target) return gentle;
  const asked = kept.some(isAsked) ? undefined : older.findLast(isAsked);
  const summed = older.filter((message) => message !== asked);
  const summary = summarize(summed, target * SUMMARY);
  const rest = [...head, ...summary, ...(asked === undefined ? [] : [asked]), ...kept];
  return estimateMessages(rest) <= maxTokens ? rest : squeeze(rest, kept, maxTokens);
}

const isAsked = (message: Message) => message.role === "user" && !isSummary(message);

/** The system prompt and the task with everything before it; then turns. */
function split(messages: readonly Message[]): { head: Message[]; turns: Turn[] } {
  const task = messages.findIndex((message) => message.role === "user");
  const head = messages.slice(0, task + 1);
  const turns: Message[][] = [];
  for (const message of messages.slice(task + 1)) {
    const last = turns.at(-1);
    if (message.role === "tool" && last !== undefined) last.push(message);
    else turns.push([message]);
  }
  return { head, turns };
}

/** Index of the first turn that stays as it is: the last one always does, others as far as they fit. */
function newestTurns(turns: readonly Turn[], maxTokens: number): number {
  let first = turns.length;
  let tokens = 0;
  for (const [index, turn] of [...turns.entries()].reverse()) {
    tokens += estimateMessages(turn);
    if (tokens > maxTokens && first < turns.length) break;
    first = index;
  }
  return first;
}

function shortenMessage(message: Message): Message {
  if (message.role === "tool") return { ...message, content: shorten(message.content, OLD_CHARS) };
  if (message.role !== "assistant" || message.tool_calls === undefined) return message;
  return { ...message, tool_calls: message.tool_calls.map(shortenCall) };
}

function shortenCall(call: ToolCall): ToolCall {
  const { name, arguments: text } = call.function;
  if (text.length <= OLD_CHARS) return call;
  return { ...call, function: { name, arguments: shortenFields(text) } };
}

/** JSON again, whatever it was. */
function shortenFields(text: string): string {
  const short = (_: string, value: unknown) =>
    typeof value === "string" ? shorten(value, OLD_CHARS) : value;
  try {
    return JSON.stringify(JSON.parse(text, short));
  } catch {
    return "{}";
  }
}

/** The last resort: what the newest turns' tools put out, evenly cut, so that the model can be asked at all. */
function squeeze(messages: readonly Message[], newest: readonly Message[], maxTokens: number): Message[] {
  const outputs = newest.filter((message) => message.role === "tool");
  const others = estimateMessages(messages) - estimateMessages(outputs);
  const room = Math.max(0, maxTokens - others - outputs.length * 5);
  const chars = Math.floor((room / Math.max(1, outputs.length)) * CHARS_PER_TOKEN);
  const most = Math.max(MIN_OUTPUT_CHARS, chars);
  return messages.map((message) =>
    message.role === "tool" && newest.includes(message)
      ? { ...message, content: shorten(message.content, most) }
      : message,
  );
}
