import { setImmediate as breathe } from "node:timers/promises";
import type { ChatBody, ChatMessage } from "../requests/chat-request.ts";

/** Runs without a break longer than this are cut: the merge is quadratic in them (100 kB of blanks: 3.5 s). */
const RUN = 256;
/** Characters counted before the event loop gets its turn (about 5 ms). */
const SLICE = 32_768;
/** What OpenAI adds per message, and once for the answer to come. */
const PER_MESSAGE = 3;
/** A picture of 1024 x 1024 in high detail. */
const PER_MEDIA_PART = 765;

type Count = (text: string) => number;
let loading: Promise<Count> | undefined;

/** 220 ms and 75 MB: only loaded where a provider counts nothing, or for the scripted model. */
function load(): Promise<Count> {
  loading ??= import("gpt-tokenizer/encoding/o200k_base").then(
    ({ countTokens }) =>
      (text) =>
        countTokens(text, { disallowedSpecial: new Set() }),
  );
  return loading;
}

/** Tokens of a text in o200k_base. Long texts are counted in slices, which may differ by one per slice. */
export async function countTokens(text: string): Promise<number> {
  if (text === "") return 0;
  const count = await load();
  let total = 0;
  let budget = SLICE;
  for (const piece of pieces(text)) {
    total += count(piece);
    budget -= piece.length;
    if (budget <= 0) {
      await breathe();
      budget = SLICE;
    }
  }
  return total;
}

function* pieces(text: string): Generator<string> {
  let from = 0;
  for (const run of text.matchAll(/\s{256}|\S{256}/g)) {
    const end = run.index + RUN;
    yield* slices(text.slice(from, end));
    from = end;
  }
  if (from < text.length) yield* slices(text.slice(from));
}

function* slices(text: string): Generator<string> {
  for (let at = 0; at < text.length; at += SLICE) yield text.slice(at, at + SLICE);
}

/** Input tokens of a request: its messages with what surrounds each, and the tools it offers. */
export async function countRequest(body: Pick<ChatBody, "messages" | "tools">): Promise<number> {
  let total = PER_MESSAGE;
  for (const message of body.messages) total += await countMessage(message);
  if ((body.tools?.length ?? 0) > 0) total += await countTokens(JSON.stringify(body.tools));
  return total;
}

async function countMessage({ role, content, ...rest }: ChatMessage): Promise<number> {
  let total = PER_MESSAGE + (await countTokens(role));
  if (typeof content === "string") total += await countTokens(content);
  if (Array.isArray(content)) {
    for (const part of content) {
      total += typeof part?.text === "string" ? await countTokens(part.text) : PER_MEDIA_PART;
    }
  }
  const extra = rest.tool_calls ?? rest.name;
  if (extra !== undefined) total += await countTokens(JSON.stringify(extra));
  return total;
}
