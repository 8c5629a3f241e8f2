import type { IncomingHttpHeaders } from "node:http";

/** What the scripted provider answers: the types, and how a reply is chosen from the request alone. */

export interface ProviderUsage {
  prompt_tokens: number;
  completion_tokens: number;
  cached_tokens: number;
}

const FAULTS = [
  /** Status 429 with Retry-After (`retryAfterSeconds`, default 1). */
  "429",
  "500",
  "503",
  /** Status 401 whose message repeats the key it was sent. */
  "401",
  "400",
  /** Status 302 to `redirectTo`. */
  "redirect",
  /** Accepts the request and never answers. */
  "hang",
  /** Streams half of the text and then stays silent. */
  "hang-stream",
  /** Closes the connection before any header. */
  "reset",
  /** Half of a JSON chunk, then the connection breaks. */
  "half-chunk",
  /** Ends the answer properly, but without finish_reason and [DONE]. */
  "no-done",
  /** An error object in the middle of the stream, repeating the key. */
  "error-event",
  /** Status 200 with a web page. */
  "html",
] as const;
type Fault = (typeof FAULTS)[number];

interface ToolCall {
  name: string;
  arguments: Record<string, unknown>;
}

/** One answer. Everything left out has a sensible default. */
export interface Reply {
  /** The text, cut into words; or the exact deltas. */
  text?: string | string[];
  toolCalls?: ToolCall[];
  /** What is reported: counted (default), given, left out, nonsense, or counted in every chunk. */
  usage?: ProviderUsage | "none" | "wrong" | "continuous";
  fault?: Fault;
  /** The fault strikes only this many times per rule or directive and key, then the reply is normal. */
  times?: number;
  /** Pause before each delta, ms. */
  delayMs?: number;
  /** Pause before the headers, ms. */
  firstByteMs?: number;
  /** The headers wait for it. */
  until?: Promise<unknown>;
  retryAfterSeconds?: number;
  redirectTo?: string;
  /** Streams this many bytes of filler text. */
  bytes?: number;
  finishReason?: string;
}

interface Message {
  role: string;
  content?: unknown;
}

export interface ChatBody {
  model?: string;
  stream?: boolean;
  stream_options?: { include_usage?: boolean };
  max_tokens?: number;
  max_completion_tokens?: number;
  messages?: Message[];
  n?: number;
  tools?: { function?: { name?: string; parameters?: { properties?: Record<string, unknown> } } }[];
  [key: string]: unknown;
}

/** One request as the provider saw it, and what became of it. */
export interface RecordedRequest {
  /** Times in ms of `performance.now()`. */
  at: number;
  firstByteAt?: number;
  endedAt?: number;
  method: string;
  path: string;
  /** The bearer token, the empty string when none was sent. */
  key: string;
  headers: IncomingHttpHeaders;
  raw: string;
  body: ChatBody;
  /** Text of the last user message. */
  prompt: string;
  reply?: Reply;
  /** Text deltas handed to the socket, joined. */
  streamed: string;
  /** What it told the caller it used; unset when it told nothing. */
  reported?: ProviderUsage;
  /** The caller closed the connection before the answer was complete. */
  aborted: boolean;
  /** The whole answer went out. */
  completed: boolean;
}

/** All text of one message. */
function textOf(message: Message | undefined): string {
  const content = message?.content;
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .map((part: { text?: unknown }) => (typeof part?.text === "string" ? part.text : ""))
    .join("");
}

export function lastPrompt(body: ChatBody): string {
  return textOf(body.messages?.findLast((message) => message.role === "user"));
}

/**
 * Directives in the prompt, as in `[[500x2]] [[delay:20]] [[text:hello]] [[bytes:100000]] [[usage:none]]
 * [[file:a/b.txt]] [[content:…]]`, and the model name `fault-<name>`.
 */
function directives(body: ChatBody): Map<string, string> {
  const found = new Map<string, string>();
  for (const match of lastPrompt(body).matchAll(/\[\[([\w-]+)(?::([^\]]*))?\]\]/g)) {
    found.set(match[1] ?? "", match[2] ?? "");
  }
  const model = /^fault-([\w-]+)$/.exec(body.model ?? "")?.[1];
  if (model !== undefined) found.set(model, "");
  return found;
}

function faultReply(given: Map<string, string>): Reply {
  const reply: Reply = {};
  for (const [name, value] of given) {
    const [, fault, times] = /^(.+?)(?:x(\d+))?$/.exec(name) ?? [];
    const known = FAULTS.find((item) => item === fault);
    if (known === undefined) continue;
    reply.fault = known;
    if (times !== undefined) reply.times = Number(times);
    if (known === "429" && value !== "") reply.retryAfterSeconds = Number(value);
    if (known === "redirect") reply.redirectTo = value;
  }
  return reply;
}

/** Arguments for the offered tool, named as its own schema names them. */
function callTool(
  body: ChatBody,
  name: string,
  values: { pattern: RegExp; value: string }[],
): ToolCall | undefined {
  const tool = body.tools?.find((item) => item.function?.name === name);
  if (tool === undefined) return undefined;
  const args: Record<string, unknown> = {};
  for (const key of Object.keys(tool.function?.parameters?.properties ?? {})) {
    const match = values.find((item) => item.pattern.test(key));
    if (match !== undefined) args[key] = match.value;
  }
  return { name, arguments: args };
}

/** The task of three steps: write a file, look at it in the shell, say so. */
function taskStep(body: ChatBody, given: Map<string, string>): Reply {
  const messages = body.messages ?? [];
  const start = messages.findLastIndex((message) => message.role === "user");
  const done = messages.slice(start + 1).filter((message) => message.role === "tool").length;
  const path = given.get("file") ?? "result.txt";
  const content = `${given.get("content") ?? lastPrompt(body)}\n`;
  const steps = [
    callTool(body, "write", [
      { pattern: /path/i, value: path },
      { pattern: /content/i, value: content },
    ]),
    callTool(body, "bash", [
      { pattern: /command/i, value: given.get("bash") ?? `wc -c ${path}` },
      { pattern: /description/i, value: "Counts the bytes of the new file" },
    ]),
  ].filter((step) => step !== undefined);
  const next = steps[done];
  return next === undefined
    ? { text: given.get("text") ?? `Done: wrote ${path} in ${done} steps.` }
    : { text: `Step ${done + 1}. `, toolCalls: [next] };
}

/** The reply a request gets when no rule matches it. */
export function defaultReply(body: ChatBody): Reply {
  const given = directives(body);
  const offersTools = (body.tools?.length ?? 0) > 0;
  const isTitle = textOf(body.messages?.[0]).toLowerCase().includes("title generator");
  const base: Reply = isTitle
    ? { text: "Scripted title" }
    : offersTools && !given.has("text-only")
      ? taskStep(body, given)
      : { text: given.get("text") ?? "The scripted provider answers in a few plain words." };
  const usage = given.get("usage");
  return {
    ...base,
    ...(isTitle ? {} : faultReply(given)),
    ...(given.has("delay") ? { delayMs: Number(given.get("delay")) } : {}),
    ...(given.has("first-byte") ? { firstByteMs: Number(given.get("first-byte")) } : {}),
    ...(given.has("bytes") ? { bytes: Number(given.get("bytes")) } : {}),
    ...(usage === "none" || usage === "wrong" || usage === "continuous" ? { usage } : {}),
  };
}
