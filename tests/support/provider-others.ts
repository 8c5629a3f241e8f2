import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { sendJson } from "./provider-answers.ts";
import type { ProviderUsage, RecordedRequest } from "./provider-replies.ts";

/** The scripted provider's old completions and embeddings: what it says follows from the request alone. */

const VECTOR_LENGTH = 8;

/** Words of the answer to each prompt of `/completions`. */
const COMPLETION_WORDS = ["scripted ", "completion ", "of ", "the ", "provider"];

const inputsOf = (value: unknown): unknown[] =>
  Array.isArray(value) && typeof value[0] !== "number" ? value : [value];

const tokensOf = (input: unknown) =>
  Array.isArray(input) ? input.length : Math.max(1, Math.ceil(String(input).length / 4));

export async function answerCompletion(response: ServerResponse, record: RecordedRequest): Promise<void> {
  const { body } = record;
  const prompts = inputsOf(body.prompt);
  const n = Number(body.n ?? 1);
  const words = COMPLETION_WORDS.slice(0, Number(body.max_tokens ?? 16));
  const finish_reason = words.length < COMPLETION_WORDS.length ? "length" : "stop";
  const reported: ProviderUsage = {
    prompt_tokens: prompts.reduce<number>((sum, prompt) => sum + tokensOf(prompt), 0),
    completion_tokens: words.length * prompts.length * n,
    cached_tokens: 0,
  };
  record.reported = reported;
  const usage = {
    prompt_tokens: reported.prompt_tokens,
    completion_tokens: reported.completion_tokens,
    total_tokens: reported.prompt_tokens + reported.completion_tokens,
  };
  const frame = { id: "cmpl-scripted", object: "text_completion", created: 1_700_000_000, model: body.model };
  const indexes = Array.from({ length: prompts.length * n }, (_, index) => index);
  const choice = (index: number, text: string, reason: string | null) => ({
    index,
    text,
    logprobs: null,
    finish_reason: reason,
  });
  record.streamed = words.join("").repeat(indexes.length);
  if (body.stream !== true) {
    const choices = indexes.map((index) => choice(index, words.join(""), finish_reason));
    return sendJson(response, 200, { ...frame, choices, usage }, record);
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  record.firstByteAt = performance.now();
  const send = (event: unknown) => response.write(`data: ${JSON.stringify(event)}\n\n`);
  for (const word of words) {
    for (const index of indexes) send({ ...frame, choices: [choice(index, word, null)] });
  }
  for (const index of indexes) send({ ...frame, choices: [choice(index, "", finish_reason)] });
  if (body.stream_options?.include_usage === true) send({ ...frame, choices: [], usage });
  record.completed = true;
  response.end("data: [DONE]\n\n");
}

/** Vectors made of the input's hash, so that equal inputs give equal vectors. */
export function answerEmbedding(response: ServerResponse, record: RecordedRequest): void {
  const { body } = record;
  const inputs = inputsOf(body.input);
  const length = Number(body.dimensions ?? VECTOR_LENGTH);
  const data = inputs.map((input, index) => {
    const hash = createHash("sha256").update(JSON.stringify(input)).digest();
    const vector = Float32Array.from({ length }, (_, at) => (hash[at % hash.length] ?? 0) / 255);
    const embedding =
      body.encoding_format === "base64" ? Buffer.from(vector.buffer).toString("base64") : [...vector];
    return { object: "embedding", index, embedding };
  });
  const prompt_tokens = inputs.reduce<number>((sum, input) => sum + tokensOf(input), 0);
  record.reported = { prompt_tokens, completion_tokens: 0, cached_tokens: 0 };
  const usage = { prompt_tokens, total_tokens: prompt_tokens };
  sendJson(response, 200, { object: "list", data, model: body.model, usage }, record);
}
