import type { Message, ToolCall } from "../loop/model.ts";
import { estimateMessages, estimateTokens } from "./tokens.ts";

const HEADER =
  "[The earlier part of this session was left out to save room. What was done in it, oldest first; files may have changed since they were read:]";
const MAX_ENTRY_CHARS = 240;

/** What a tool's use comes to, and the field that says on what. */
const DEEDS: Readonly<Record<string, { readonly deed: string; readonly field: string }>> = {
  read: { deed: "read", field: "filePath" },
  write: { deed: "wrote", field: "filePath" },
  edit: { deed: "edited", field: "filePath" },
  bash: { deed: "ran", field: "command" },
  grep: { deed: "searched for", field: "pattern" },
  glob: { deed: "looked for files", field: "pattern" },
  list: { deed: "listed", field: "path" },
};

/** Whether a message is what `summarize` made. */
export function isSummary(message: Message): boolean {
  return message.role === "user" && message.content.startsWith(HEADER);
}

/**
 * One message of `maxTokens` at most in place of these: what was asked, said, read, changed and run, each thing once and
 * where it was done last. An earlier summary among them goes on in it. None for messages that tell nothing.
 */
export function summarize(messages: readonly Message[], maxTokens: number): Message[] {
  // Deleting first: a thing done again stands where it was done last.
  const entries = new Set<string>();
  for (const entry of messages.flatMap(entriesOf)) {
    entries.delete(entry);
    entries.add(entry);
  }
  const kept: string[] = [];
  let room = maxTokens - estimateMessages([{ role: "user", content: HEADER }]);
  for (const entry of [...entries].reverse()) {
    room -= estimateTokens(`\n${entry}`);
    if (room < 0) break;
    kept.unshift(entry);
  }
  return kept.length === 0 ? [] : [{ role: "user", content: [HEADER, ...kept].join("\n") }];
}

function entriesOf(message: Message): string[] {
  if (isSummary(message)) return (message.content ?? "").split("\n").slice(1);
  if (message.role === "user") return entry("asked:", message.content);
  if (message.role !== "assistant") return [];
  const said = entry("said:", message.content ?? "");
  return [...said, ...(message.tool_calls ?? []).flatMap(deedOf)];
}

function deedOf({ function: { name, arguments: text } }: ToolCall): string[] {
  const known = DEEDS[name];
  if (known === undefined) return [];
  return entry(known.deed, fieldOf(text, known.field) ?? "");
}

function fieldOf(text: string, field: string): string | undefined {
  try {
    const value: unknown = JSON.parse(text)?.[field];
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

/** One line; none for nothing. */
function entry(deed: string, about: string): string[] {
  const line = about
    .slice(0, MAX_ENTRY_CHARS * 4)
    .replaceAll(/\s+/g, " ")
    .trim();
  if (line === "") return [];
  const short = line.length > MAX_ENTRY_CHARS ? `${line.slice(0, MAX_ENTRY_CHARS)}…` : line;
  return [`- ${deed} ${short.toWellFormed()}`];
}
