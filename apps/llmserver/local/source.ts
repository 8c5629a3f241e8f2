import { ApiError } from "../api-error.ts";
import type { Usage } from "../calls/tally.ts";
import { mediaParts } from "../requests/chat-request.ts";
import type { EmbeddingRequest } from "../requests/embedding-request.ts";
import type { ModelRequest } from "../requests/request.ts";
import type { Answer, BeginOptions, Source } from "../sources/source.ts";
import { merged } from "./merged.ts";
import type { LocalModels } from "./models.ts";
import { refused, toChatGenerate, toCompletionGenerates } from "./requests.ts";
import type { EngineEvent, EngineUsage, GenerateRequest, LoadedModel } from "./types.ts";
import { chatWording, completionWording, usageOf, type Wording } from "./wording.ts";

/** More than any text has; what is longer than this for each token that fits is not worth counting, which takes seconds. */
const MOST_BYTES_PER_TOKEN = 64;
const NOTHING_USED: EngineUsage = { input_tokens: 0, cached_tokens: 0, output_tokens: 0 };
const NOTHING_TO_REDACT = { text: (text: string) => text, quick: (text: string) => text };

/**
 * A model of this machine as a source of answers, loaded if need be. Its own tokenizer has counted the input before
 * anything is held, so that the hold is as small as it can be and a prompt that is too long costs nothing.
 * @throws ApiError for what the model or its engine cannot do, and when it cannot be loaded.
 */
export async function localSource(
  request: ModelRequest,
  models: Pick<LocalModels, "open">,
  signal: AbortSignal,
): Promise<Source> {
  // Before the model is loaded for it: what the body asks for is wrong whatever the model.
  const asked = request.kind === "embedding" ? undefined : generatesOf(request);
  const opened = await models.open(request.model, signal);
  try {
    const { model } = opened;
    const input =
      asked === undefined || request.kind === "embedding"
        ? await prepareEmbedding(request as EmbeddingRequest, model, signal)
        : await prepareText(request, asked, model, signal);
    return { ...input, [Symbol.dispose]: () => opened[Symbol.dispose]() };
  } catch (error) {
    opened[Symbol.dispose]();
    throw error;
  }
}

type Prepared = Omit<Source, keyof Disposable>;
type TextRequest = Exclude<ModelRequest, EmbeddingRequest>;

function generatesOf(request: TextRequest): GenerateRequest[] {
  return request.kind === "chat" ? [toChatGenerate(request)] : toCompletionGenerates(request);
}

async function prepareText(
  request: TextRequest,
  asked: readonly GenerateRequest[],
  model: LoadedModel,
  signal: AbortSignal,
): Promise<Prepared> {
  if (model.info.kind !== "chat") {
    throw new ApiError(400, `The model "${request.model}" makes embeddings only.`, {
      param: "model",
      code: "unsupported_value",
    });
  }
  // What is no text is refused by name below.
  const media = request.kind === "chat" ? mediaParts(request.body.messages) : 0;
  if (media === 0)
    refuseHuge(request.bytes, model.info.context_size, request.kind === "chat" ? "messages" : "prompt");
  const counts = await Promise.all(asked.map((one) => model.count(one, signal)));
  const inputTokens = counts.reduce((sum, count) => sum + count, 0);
  return {
    inputTokens,
    countInput: async () => inputTokens,
    begin: async ({ maxTokens, abort }) => {
      const clamped = asked.map((one) => ({ ...one, max_tokens: maxTokens }));
      return textAnswer(request, clamped, model, abort.signal);
    },
  };
}

/** @throws ApiError 400 `context_length_exceeded`. */
function refuseHuge(bytes: number, context_size: number, param: string): void {
  if (bytes <= context_size * MOST_BYTES_PER_TOKEN) return;
  const message = `This model's maximum context length is ${context_size} tokens; ${bytes} bytes are far beyond it.`;
  throw new ApiError(400, message, { param, code: "context_length_exceeded" });
}

function textAnswer(
  request: TextRequest,
  asked: readonly GenerateRequest[],
  model: LoadedModel,
  signal: AbortSignal,
): Answer {
  let used: Usage | undefined;
  const wording = wordingOf(request);
  async function* events(): AsyncGenerator<EngineEvent[]> {
    const streams = asked.map((one) => model.generate(one, signal));
    for await (const { events: said, usage } of merged(streams, asked[0]?.n)) {
      used = { ...usage, counted_by: "model" };
      if (said.length > 0) yield said;
    }
  }
  return {
    redactor: NOTHING_TO_REDACT,
    used: () => used,
    async *batches() {
      for await (const said of events()) yield said.map((event) => JSON.stringify(wording.chunk(event)));
      yield [JSON.stringify(wording.usage(used ?? NOTHING_USED)), "[DONE]"];
    },
    async text() {
      for await (const said of events()) for (const event of said) wording.take(event);
      return JSON.stringify(wording.whole(used ?? NOTHING_USED));
    },
    finish() {},
    report() {},
    [Symbol.dispose]() {},
  };
}

function wordingOf(request: TextRequest): Wording {
  if (request.kind === "chat") return chatWording(request.model);
  const { prompts, body } = request;
  const perPrompt = request.choices / prompts.length;
  return completionWording(request.model, (choice) => {
    const prompt = body.echo === true ? prompts[Math.floor(choice / perPrompt)] : "";
    // Others were refused before anything was generated.
    return typeof prompt === "string" ? prompt : "";
  });
}

async function prepareEmbedding(
  request: EmbeddingRequest,
  model: LoadedModel,
  signal: AbortSignal,
): Promise<Prepared> {
  const { dimensions } = request.body;
  if (dimensions != null && dimensions !== model.info.embedding_length) {
    throw refused("dimensions", `Its vectors have ${model.info.embedding_length}.`);
  }
  for (const [index, input] of request.inputs.entries()) {
    refuseHuge(input.length, model.info.context_size, `input[${index}]`);
  }
  signal.throwIfAborted();
  // Counted by the engine while it embeds; no text has more tokens than bytes, and two that mark its ends.
  const inputTokens = request.bytes + 2 * request.inputs.length;
  return {
    inputTokens,
    countInput: async () => inputTokens,
    begin: async (options) => embeddingAnswer(request, model, options),
  };
}

function embeddingAnswer(request: EmbeddingRequest, model: LoadedModel, { abort }: BeginOptions): Answer {
  let used: Usage | undefined;
  return {
    redactor: NOTHING_TO_REDACT,
    used: () => used,
    // biome-ignore lint/correctness/useYield: vectors come whole
    async *batches() {
      throw new ApiError(400, "Embeddings are not streamed.", { param: "stream" });
    },
    async text() {
      const { vectors, input_tokens } = await model.embed(request.inputs, abort.signal);
      used = { input_tokens, output_tokens: 0, cached_tokens: 0, counted_by: "model" };
      const data = vectors.map((vector, index) => ({
        object: "embedding",
        index,
        embedding: request.body.encoding_format === "base64" ? base64Of(vector) : [...vector],
      }));
      const { prompt_tokens, total_tokens } = usageOf(used);
      return JSON.stringify({
        object: "list",
        data,
        model: request.model,
        usage: { prompt_tokens, total_tokens },
      });
    },
    finish() {},
    report() {},
    [Symbol.dispose]() {},
  };
}

function base64Of(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64");
}
