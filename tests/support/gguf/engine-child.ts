import {
  type ChatHistoryItem,
  type ChatModelFunctions,
  type GbnfJsonBasicSchema,
  type GbnfJsonSchema,
  getLlama,
  type Llama,
  LlamaChat,
  LlamaLogLevel,
  type LlamaModel,
  readGgufFileInfo,
  resolveChatWrapper,
} from "node-llama-cpp";

/**
 * The real engine in a process of its own, so that a test can tell when a file ends it. It answers one message after the
 * other, and ends by itself when its parent lets go of it.
 */

export type Task =
  | { kind: "read"; path: string }
  | { kind: "load"; path: string; checkTensors: boolean }
  | { kind: "tokens"; path: string; texts: readonly string[] }
  | { kind: "embeddings"; path: string; texts: readonly string[] }
  | { kind: "chat"; path: string; chats: readonly Chat[] };

export interface Chat {
  history: ChatHistoryItem[];
  functions?: ChatModelFunctions;
  schema?: GbnfJsonSchema;
  temperature: number;
  maxTokens: number;
}

export interface Header {
  version: number;
  /** Values by their whole keys; of lists the lengths. */
  metadata: Record<string, unknown>;
  tensors: { name: string; shape: number[] }[];
}

export interface Tokens {
  count: number;
  text: string;
}

export interface Answer {
  text: string;
  calls: { name: string; params: unknown }[];
  stopReason: string;
}

/** What comes back for a task. */
export type Outcome = { result: unknown } | { error: string };

/** Cells: the longest chat of the tests. */
const CONTEXT = 8192;

const starting = getLlama({
  ...{ build: "never", gpu: false, skipDownload: true, maxThreads: 1 },
  logLevel: LlamaLogLevel.disabled,
});

async function perform(task: Task): Promise<unknown> {
  if (task.kind === "read") return await header(task.path);
  const llama = await starting;
  const checkTensors = task.kind === "load" && task.checkTensors;
  const model = await llama.loadModel({ modelPath: task.path, checkTensors });
  try {
    if (task.kind === "tokens") return task.texts.map((text) => roundTrip(model, text));
    if (task.kind === "embeddings") return await embeddings(model, task.texts);
    if (task.kind === "chat") return await answers(llama, model, task.chats);
    return true;
  } finally {
    await model.dispose();
  }
}

async function header(path: string): Promise<Header> {
  const file = await readGgufFileInfo(path, { sourceType: "filesystem", logWarnings: false });
  return {
    version: file.version,
    metadata: Object.fromEntries(flat(file.metadata)),
    tensors: (file.fullTensorInfo ?? []).map(({ name, dimensions }) => ({
      name,
      shape: dimensions.map(Number),
    })),
  };
}

function flat(values: object, prefix = ""): [key: string, value: unknown][] {
  return Object.entries(values).flatMap(([name, value]): [string, unknown][] => {
    if (Array.isArray(value)) return [[prefix + name, value.length]];
    const nested = typeof value === "object" && value !== null;
    return nested ? flat(value, `${prefix}${name}.`) : [[prefix + name, value]];
  });
}

function roundTrip(model: LlamaModel, text: string): Tokens {
  const tokens = model.tokenize(text);
  return { count: tokens.length, text: model.detokenize(tokens) };
}

async function embeddings(model: LlamaModel, texts: readonly string[]): Promise<number[][]> {
  const context = await model.createEmbeddingContext({ threads: 1 });
  const vectors: number[][] = [];
  for (const text of texts) vectors.push([...(await context.getEmbeddingFor(text)).vector]);
  return vectors;
}

async function answers(llama: Llama, model: LlamaModel, chats: readonly Chat[]): Promise<Answer[]> {
  const context = await model.createContext({ contextSize: CONTEXT, threads: 1 });
  const session = new LlamaChat({
    contextSequence: context.getSequence(),
    chatWrapper: resolveChatWrapper(model),
  });
  const given: Answer[] = [];
  for (const { history, functions, schema, temperature, maxTokens } of chats) {
    // Its parameter is typed for schemas that are written down in the program.
    const grammar = schema && (await llama.createGrammarForJsonSchema(schema as GbnfJsonBasicSchema));
    const { response, functionCalls, metadata } = await session.generateResponse(history, {
      ...{ temperature, maxTokens, seed: 1 },
      ...(functions === undefined
        ? { ...(grammar === undefined ? {} : { grammar }) }
        : { functions, documentFunctionParams: true }),
    });
    const calls = (functionCalls ?? []).map(({ functionName, params }) => ({ name: functionName, params }));
    given.push({ text: response, calls, stopReason: metadata.stopReason });
  }
  return given;
}

process.on("message", async (task: Task) => {
  const outcome: Outcome = await perform(task).then(
    (result) => ({ result }),
    (error: unknown) => ({ error: String(error) }),
  );
  process.send?.(outcome);
});
process.once("disconnect", async () => (await starting).dispose());
