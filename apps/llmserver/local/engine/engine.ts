import type { EngineBatch, GenerateRequest } from "../types.ts";
import { generateChat } from "./chat.ts";
import { chatPrompt } from "./chat-prompt.ts";
import { completionPrompt, generateCompletion } from "./completion.ts";
import type { Generation, Loaded } from "./loaded.ts";
import { type ChoiceSink, Outbox } from "./outbox.ts";
import { invalid } from "./refusal.ts";
import { Run } from "./run.ts";
import { samplingFor } from "./sampling.ts";
import type { Slot } from "./slot.ts";

/** One request with its prompt made: what is left is to generate each of its choices. */
interface Task {
  prompt: ChatPrompt["prompt"];
  generate: (slot: Slot, run: Run, sink: ChoiceSink) => Promise<void>;
}

type ChatPrompt = Awaited<ReturnType<typeof chatPrompt>>;

/** Tokens of a request's prompt. @throws Refusal 400. */
export async function count(loaded: Loaded, request: GenerateRequest): Promise<number> {
  return (await prepare(loaded, request)).prompt.length;
}

/**
 * Generate all choices of a request, as many at once as there are sequences. The last batch has the usage of all that was
 * generated, also when it was cancelled.
 * @throws Refusal; Ended or the signal's reason when cancelled.
 */
export async function generate(
  loaded: Loaded,
  request: GenerateRequest,
  signal: AbortSignal,
  send: (batch: EngineBatch) => void,
): Promise<void> {
  const task = await prepare(loaded, request);
  const { slots } = generationOf(loaded);
  slots.admit();
  const outbox = new Outbox(send);
  const room = loaded.info.context_size - task.prompt.length;
  const maxTokens = Math.min(request.max_tokens, room);
  let next = 0;
  // One choice that fails takes the others along: there is no answer without it.
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const work = async () => {
    for (let choice = next++; choice < request.n; choice = next++) {
      const sampling = samplingFor(request.sampling, choice, loaded);
      await slots.use(task.prompt, either, async (slot) => {
        const { logprobs } = request;
        const run = new Run({
          sequenceId: slot.id,
          prompt: task.prompt,
          maxTokens,
          sampling,
          logprobs,
          signal: either,
        });
        outbox.add(run);
        await slot.use(run, () => task.generate(slot, run, outbox.choice(choice)));
      });
    }
  };
  try {
    const workers = Array.from({ length: Math.min(request.n, slots.total) }, () =>
      work().catch((error: unknown) => {
        failed.abort(error);
        throw error;
      }),
    );
    await Promise.allSettled(workers);
    if (failed.signal.aborted) throw failed.signal.reason;
  } finally {
    outbox.close();
  }
}

function generationOf({ generation }: Loaded): Generation {
  if (generation === undefined) {
    throw invalid("model", "This model makes embeddings and writes no text.");
  }
  return generation;
}

async function prepare(loaded: Loaded, request: GenerateRequest): Promise<Task> {
  const generation = generationOf(loaded);
  if (request.logprobs !== undefined && !generation.logprobs) {
    throw invalid("logprobs", "This version of the engine cannot tell them.", "unsupported_parameter");
  }
  // Found out before anybody waits for a sequence.
  samplingFor(request.sampling, 0, loaded);
  if (request.kind === "completion") {
    const prompt = await completionPrompt(loaded, request);
    return {
      prompt,
      generate: (slot, run, sink) => generateCompletion(slot, run, prompt, sink, request.stop),
    };
  }
  const chat = await chatPrompt(loaded, generation, request);
  const { stop } = request;
  const maxTokens = Math.min(request.max_tokens, loaded.info.context_size - chat.prompt.length);
  return {
    prompt: chat.prompt,
    generate: (slot, run, sink) => generateChat(slot, run, chat, sink, { maxTokens, stop }),
  };
}
