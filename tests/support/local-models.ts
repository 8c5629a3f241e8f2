import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cachedModel } from "./gguf/index.ts";
import { startLlmServer, type TestLlmServer } from "./llm-server.ts";

type ModelName = Parameters<typeof cachedModel>[0];

export interface LocalServer extends AsyncDisposable {
  server: TestLlmServer;
  modelsDir: string;
}

/** The LLM server over a models directory of its own with these generated models in it. */
export async function startLocalServer(
  names: readonly ModelName[] = ["tiny-scripted", "tiny-bert"],
  env: Record<string, string> = {},
): Promise<LocalServer> {
  const modelsDir = await mkdtemp(join(tmpdir(), "cds-models-"));
  for (const name of names) await copyFile(await cachedModel(name), join(modelsDir, `${name}.gguf`));
  const server = await startLlmServer({ CDS_MODELS_DIR: modelsDir, ...env });
  return {
    server,
    modelsDir,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await rm(modelsDir, { recursive: true, force: true });
    },
  };
}
