/** Model files from a Hugging Face-style hub: verified, resumed, and from nowhere else. */
export { type DownloadedModel, type DownloadOptions, downloadModel } from "./download.ts";
export { checkGgufHeader } from "./gguf-header.ts";
export { parseModelUrl } from "./parse-url.ts";
export type { DownloadProgress } from "./progress.ts";
