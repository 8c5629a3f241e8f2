import { availableParallelism } from "node:os";
import {
  type GgufFileInfo,
  GgufInsights,
  getLlama,
  InsufficientMemoryError,
  LlamaLogLevel,
  type LlamaModel,
  readGgufFileInfo,
  resolveChatWrapper,
  type Token,
} from "node-llama-cpp";
import type { EngineInfo, LoadOptions } from "../types.ts";
import { ascendingSequences } from "./batching.ts";
import { Conductor } from "./conductor.ts";
import { estimateBytes } from "./estimate.ts";
import { EngineLog, failureOf } from "./load-failure.ts";
import type { Generation, Loaded } from "./loaded.ts";
import type { EngineEstimate, EngineLimits } from "./protocol.ts";
import { LoadRefusal } from "./refusal.ts";
import { Slot } from "./slot.ts";
import { Slots } from "./slots.ts";

/** llama.cpp's threads wait for each other spinning: a second one on a busy machine makes both slower, not faster. */
const DEFAULT_THREADS = 1;
/** Left to itself the library takes all the model was trained for: gigabytes for what nobody asks. */
const DEFAULT_CONTEXT = 4096;
const DEFAULT_EMBEDDING_CONTEXT = 2048;
const MIN_CONTEXT = 32;
const DEFAULT_SEQUENCES = 4;
/** llama.cpp takes 256; what a machine computes together with gain ends before. */
const MAX_SEQUENCES = 64;
/** States kept to go back to, for models that cannot forget only the end of their context: few, they are copies in memory. */
const CHECKPOINTS = { max: 4, maxMemory: 64e6 };
/** Tokens computed together. */
const BATCH = 256;
/** The library's chat wants one cell free besides the next token's, its contexts leave their last cell empty. */
const SPARE_CELLS = 2;

/** `llama.pooling_type` and the like: what makes one vector of a text's many. */
const POOLING_NONE = 0;
const POOLING_RANK = 4;
/** Architectures that look in both directions: no text can be continued with them. */
const ENCODERS =
  /^(bert|modern-bert|nomic-bert|nomic-bert-moe|neo-bert|jina-bert-v[23]|eurobert|gemma-embedding|t5encoder)$/;

/** Computed once before a model counts as loaded: some broken ones are only found out, or crash, when they are used. */
const FIRST_TOKEN = 0 as Token;

/** Long lists of the file that nothing is decided from; the library reads them itself when it loads. */
const UNREAD = ["tokens", "scores", "token_type", "merges"].map((key) => `tokenizer.ggml.${key}`);

/** How it will be loaded, decided from the file's metadata. */
export interface Plan {
  /** `vocabulary` as the size of its matrices, which may be padded. */
  info: EngineInfo;
  gpuLayers: number | "auto";
  /**
   * False on the CPU: nearly all weights are copied anyway, into the order its kernels read, so that a mapped file counts
   * twice (measured: 1.07 against 1.58 GB for 0.7 GB), and a mapped file that is cut off ends the process.
   */
  useMmap: boolean;
  batchSize: number;
  cells: number;
}

export interface LoadSteps {
  /** Takes lines for the log. */
  write: (line: string) => void;
  /** Told before anything big is allocated; resolves when it may be. */
  admit: (estimate: EngineEstimate) => Promise<void>;
}

/**
 * Load a model from a file whose bounds were checked: say what it will need, wait for the word, read it and make its
 * context.
 * @throws LoadRefusal.
 */
export async function load(
  path: string,
  options: LoadOptions,
  limits: EngineLimits,
  { write, admit }: LoadSteps,
): Promise<Loaded> {
  const log = new EngineLog(write);
  const threads = Math.min(options.threads ?? DEFAULT_THREADS, availableParallelism());
  try {
    const llama = await getLlama({
      build: "never",
      skipDownload: true,
      gpu: onCpu(options) ? false : "auto",
      maxThreads: threads,
      logLevel: LlamaLogLevel.warn,
      logger: (level, message) => log.add(level, message),
    });
    const file = await readGgufFileInfo(path, {
      sourceType: "filesystem",
      logWarnings: false,
      ignoreKeys: UNREAD,
    });
    const insights = await GgufInsights.from(file, llama);
    const plan = planFor(file, insights, options, threads);
    const { architecture, kind, context_size, sequences } = plan.info;
    const bytes = await estimateBytes(file, insights, plan);
    await admit({ bytes, architecture, kind, context_size, sequences });
    const model = await llama.loadModel({
      modelPath: path,
      gpuLayers: plan.gpuLayers,
      checkTensors: true,
      useMmap: plan.useMmap,
    });
    plan.info.vocabulary = model.fileInfo.metadata.tokenizer?.ggml?.tokens?.length ?? 0;
    if (plan.info.vocabulary === 0)
      throw new LoadRefusal("InvalidModel", "The model's file has no vocabulary.");
    return { llama, model, temperature: options.temperature, ...(await contextFor(model, plan, limits)) };
  } catch (error) {
    throw failureOf(error, log, (inner) => inner instanceof InsufficientMemoryError);
  }
}

function planFor(file: GgufFileInfo, insights: GgufInsights, options: LoadOptions, threads: number): Plan {
  const { architecture } = file.metadata.general;
  if (!insights.isSupportedByLlamaCpp) {
    throw new LoadRefusal(
      "UnsupportedModel",
      `This engine does not know the architecture "${architecture}".`,
    );
  }
  if (insights.hasEncoder && insights.hasDecoder) {
    throw new LoadRefusal(
      "UnsupportedModel",
      `Models that translate text (${architecture}) are not supported.`,
    );
  }
  const pooling = poolingOf(file);
  if (pooling === POOLING_RANK) {
    throw new LoadRefusal("UnsupportedModel", "It is a model for ranking, which is not supported.");
  }
  const kind = ENCODERS.test(architecture) || pooling > POOLING_NONE ? "embedding" : "chat";
  const trained = insights.trainContextSize ?? DEFAULT_CONTEXT;
  const wanted = options.context_size ?? (kind === "chat" ? DEFAULT_CONTEXT : DEFAULT_EMBEDDING_CONTEXT);
  const context_size = Math.max(Math.min(MIN_CONTEXT, trained), Math.min(wanted, trained));
  const wantedSequences = Math.max(1, Math.min(options.sequences ?? DEFAULT_SEQUENCES, MAX_SEQUENCES));
  const sequences = kind === "chat" ? wantedSequences : 1;
  return {
    info: {
      architecture,
      kind,
      context_size,
      sequences,
      threads,
      embedding_length: insights.embeddingVectorSize ?? 0,
      vocabulary: matrixRows(file),
      chat_template: typeof file.metadata.tokenizer?.chat_template === "string",
    },
    gpuLayers: options.gpu === undefined || options.gpu === false ? 0 : options.gpu,
    useMmap: !onCpu(options),
    // What looks in both directions needs the whole text in one batch.
    batchSize: kind === "chat" ? Math.max(BATCH, sequences) : context_size + SPARE_CELLS,
    cells: context_size + SPARE_CELLS,
  };
}

function onCpu({ gpu }: LoadOptions): boolean {
  return gpu === undefined || gpu === false || gpu === 0;
}

function matrixRows({ fullTensorInfo }: GgufFileInfo): number {
  const input = fullTensorInfo?.find(({ name }) => name === "token_embd.weight");
  return Number(input?.dimensions[1] ?? 0);
}

function poolingOf({ architectureMetadata }: GgufFileInfo): number {
  const { pooling_type } = architectureMetadata as { pooling_type?: unknown };
  return typeof pooling_type === "number" ? pooling_type : POOLING_NONE;
}

async function contextFor(
  model: LlamaModel,
  { info, batchSize, cells }: Plan,
  limits: EngineLimits,
): Promise<Pick<Loaded, "info" | "embedding" | "generation">> {
  const { threads, sequences } = info;
  if (info.kind === "embedding") {
    const embedding = await model.createEmbeddingContext({ contextSize: cells, batchSize, threads });
    await embedding.getEmbeddingFor([FIRST_TOKEN]);
    return { info, embedding, generation: undefined };
  }
  const context = await model.createContext({
    contextSize: cells,
    sequences,
    threads,
    batchSize,
    batching: { itemPrioritizationStrategy: ascendingSequences },
    // A smaller one than was admitted and told would be a surprise.
    failedCreationRemedy: false,
  });
  const all = Array.from({ length: sequences }, () => context.getSequence({ checkpoints: CHECKPOINTS }));
  await all[0]?.evaluateWithoutGeneratingNewTokens([FIRST_TOKEN]);
  await all[0]?.clearHistory();
  const conductor = new Conductor({ batchSize, sequences });
  const slots = all.map((sequence, id) => new Slot(id, sequence, conductor));
  const generation: Generation = {
    slots: new Slots(slots, limits.waiting),
    wrapper: resolveChatWrapper(model, { warningLogs: false }),
    logprobs: slots.every((slot) => slot.hasLogprobs),
  };
  return { info, embedding: undefined, generation };
}
