/** Model files from a Hugging Face-style hub: verified, resumed, and from nowhere else. */
export { type DownloadedModel, type DownloadOptions, downloadModel } from "./download.ts";
export { checkGgufHeader, type GgufHeader } from "./gguf-header.ts";
export type { HubConfig } from "./hub-http.ts";
export { type ModelSource, parseModelUrl } from "./parse-url.ts";
export type { DownloadProgress } from "./progress.ts";
