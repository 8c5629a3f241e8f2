import { link, mkdtemp, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { getLlama, type LlamaContextSequence, LlamaLogLevel } from "node-llama-cpp";
import { startLlmServer } from "../tests/support/llm-server.ts";

/** The processes `llm.ts` measures, one role each: node-llama-cpp called directly, and the product. */

export interface Run {
  /** Requests at once. */
  concurrent: number;
  /** Tokens each generates. */
  tokens: number;
  prompt: string;
}

export interface LlmPeerReady {
  url: string;
  api_key: string;
  admin_key: string;
}

/** What the product says of itself when asked: its memory without the model's process, and what it charged. */
export interface Account {
  rss: number;
  calls: number;
  output_tokens: number;
  open: number;
}

const SEQUENCES = 16;
const CONTEXT = 2048;

const [, , role = "", modelPath = ""] = process.argv;
process.on("disconnect", () => process.exit(0));
if (role === "bare") await bare();
if (role === "server") await server();

/** What a bare script does: one context, its sequences, evaluate; `llama.cpp`'s batching as the library has it. */
async function bare(): Promise<void> {
  const llama = await getLlama({
    ...{ build: "never", gpu: false, skipDownload: true, maxThreads: 1 },
    logLevel: LlamaLogLevel.error,
  });
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({ contextSize: CONTEXT, sequences: SEQUENCES, threads: 1 });
  const free: LlamaContextSequence[] = Array.from({ length: SEQUENCES }, () => context.getSequence());
  process.on("message", async ({ concurrent, tokens, prompt }: Run) => {
    const input = model.tokenize(prompt);
    let generated = 0;
    let left = concurrent;
    const worker = async (sequence: LlamaContextSequence) => {
      while (left > 0) {
        left -= 1;
        let mine = 0;
        await sequence.clearHistory();
        for await (const _ of sequence.evaluate(input, { temperature: 0.7 })) {
          generated += 1;
          mine += 1;
          if (mine >= tokens) break;
        }
      }
    };
    const started = performance.now();
    await Promise.all(free.map(worker));
    process.send?.({ generated, ms: performance.now() - started });
  });
  process.send?.({ url: "", api_key: "", admin_key: "" } satisfies LlmPeerReady);
}

async function server(): Promise<void> {
  // A link and no copy: the model has 700 MB. It must be on the same file system.
  const directory = await mkdtemp(join(dirname(modelPath), "bench-"));
  await link(modelPath, join(directory, basename(modelPath)));
  const llm = await startLlmServer({
    CDS_MODELS_DIR: directory,
    CDS_LLM_SEQUENCES: String(SEQUENCES),
    CDS_LLM_CONTEXT: String(CONTEXT),
    CDS_LLM_REQUESTS_PER_MINUTE: "0",
    CDS_LLM_KEY_REQUESTS_PER_MINUTE: "0",
    CDS_LLM_TOKENS_PER_MINUTE: "0",
    CDS_LLM_KEY_TOKENS_PER_MINUTE: "0",
    LOG_LEVEL: "warn",
  });
  const user = await llm.user({ balance: 1e12 });
  const admin = await llm.user({ role: "admin" });
  process.once("disconnect", () => {
    void (async () => {
      await llm[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    })();
  });
  process.on("message", async () => {
    const used = await llm.db.selectFrom("tokens_used").select("output_tokens").execute();
    const open = await llm.db.selectFrom("llm_calls").select("id").where("state", "=", "open").execute();
    const output_tokens = used.reduce((sum, row) => sum + row.output_tokens, 0);
    const rss = process.memoryUsage.rss();
    process.send?.({ rss, calls: used.length, output_tokens, open: open.length } satisfies Account);
  });
  process.send?.({ url: llm.url, api_key: user.api_key, admin_key: admin.api_key } satisfies LlmPeerReady);
}
