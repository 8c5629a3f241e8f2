/** Run by itself: whether the native library loads on this machine, and which GPU it would use, as one line of JSON. */
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const options = { build: "never", skipDownload: true, logLevel: LlamaLogLevel.disabled } as const;
const llama = await getLlama({ ...options, gpu: false });
const withGpu = await getLlama({ ...options, gpu: "auto" }).catch(() => undefined);
const gpu = withGpu?.gpu === false ? undefined : withGpu?.gpu;
process.stdout.write(
  `${JSON.stringify({ cores: llama.cpuMathCores, ...(gpu === undefined ? {} : { gpu }) })}\n`,
);
process.exit(0);
