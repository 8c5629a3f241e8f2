import { createLogger, type Log } from "#platform/log.ts";
import { cachedModel } from "#tests/support/gguf/index.ts";
import { type StartEngineOptions, startEngine } from "../../apps/llmserver/local/start-engine.ts";
import type {
  ChatGenerate,
  CompletionGenerate,
  EngineEvent,
  EngineUsage,
  GenerateRequest,
  LoadedModel,
  TokenLogprob,
} from "../../apps/llmserver/local/types.ts";

const SILENT: Log = createLogger({ level: "silent", pretty: false });
const NEVER = new AbortController().signal;

export type TestModel = LoadedModel & AsyncDisposable;

/** A generated model in its own process. */
export async function startTestEngine(
  name: Parameters<typeof cachedModel>[0],
  options: Partial<StartEngineOptions> = {},
): Promise<TestModel> {
  const model = await startEngine({
    model_id: name,
    path: await cachedModel(name),
    load: { context_size: 1024, sequences: 4 },
    log: SILENT,
    admit: () => {},
    signal: NEVER,
    ...options,
  });
  return Object.assign(model, { [Symbol.asyncDispose]: () => model.close() });
}

export function chat(text: string, more: Partial<ChatGenerate> = {}): ChatGenerate {
  return {
    kind: "chat",
    messages: [{ role: "user", content: text }],
    tools: [],
    tool_choice: "auto",
    parallel_tool_calls: true,
    response_format: { type: "text" },
    sampling: { temperature: 0 },
    max_tokens: 100,
    stop: [],
    n: 1,
    ...more,
  };
}

export function completion(
  prompt: CompletionGenerate["prompt"],
  more: Partial<CompletionGenerate> = {},
): CompletionGenerate {
  return {
    kind: "completion",
    prompt,
    sampling: { temperature: 0 },
    max_tokens: 10,
    stop: [],
    n: 1,
    ...more,
  };
}

/** One choice, whole. */
interface WholeChoice {
  text: string;
  reasoning: string;
  calls: { name: string | undefined; arguments: string }[];
  finish: string | undefined;
  logprobs: TokenLogprob[];
}

export interface Whole {
  choices: WholeChoice[];
  usage: EngineUsage;
  batches: number;
}

/** All of an answer put together; what was generated up to an error is in `into`. */
export async function whole(
  model: LoadedModel,
  request: GenerateRequest,
  signal: AbortSignal = NEVER,
  into: Whole = emptyWhole(request.n),
): Promise<Whole> {
  for await (const { events, usage } of model.generate(request, signal)) {
    into.batches += 1;
    into.usage = usage;
    for (const event of events) add(into.choices, event);
  }
  return into;
}

export function emptyWhole(n = 1): Whole {
  return {
    choices: Array.from({ length: n }, () => ({
      text: "",
      reasoning: "",
      calls: [],
      finish: undefined,
      logprobs: [],
    })),
    usage: { input_tokens: 0, cached_tokens: 0, output_tokens: 0 },
    batches: 0,
  };
}

function add(choices: WholeChoice[], event: EngineEvent): void {
  const choice = choices[event.choice];
  if (choice === undefined) throw new Error(`There is no choice ${event.choice}.`);
  if (event.type === "text") {
    choice.text += event.text;
    choice.logprobs.push(...(event.logprobs ?? []));
  } else if (event.type === "reasoning") choice.reasoning += event.text;
  else if (event.type === "finish") choice.finish = event.reason;
  else {
    const call = choice.calls[event.index] ?? { name: event.name, arguments: "" };
    choice.calls[event.index] = { ...call, arguments: call.arguments + event.arguments };
  }
}
