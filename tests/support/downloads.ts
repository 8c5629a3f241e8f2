import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type DownloadedModel,
  type DownloadOptions,
  type DownloadProgress,
  downloadModel,
  parseModelUrl,
} from "#apps/llmserver/hub/index.ts";
import { createLogger } from "#platform/log.ts";
import type { TestHub } from "./hub.ts";

/** A models directory of its own, and downloads into it. */
export interface Downloads extends AsyncDisposable {
  readonly directory: string;
  /** All that was told of the downloads' progress, in order. */
  readonly progress: DownloadProgress[];
  /** What was logged, as text. */
  readonly logged: string[];
  /** Download `acme/tiny/<file>`, or what an address says. */
  start(file: string, options?: Partial<DownloadOptions>): Promise<DownloadedModel>;
  /** The error it fails with. */
  fail(file: string, options?: Partial<DownloadOptions>): Promise<unknown>;
}

/** Downloads from `hub`; pauses between attempts are short unless `options` say otherwise. */
export async function startDownloads(hub: TestHub, env: Record<string, string> = {}): Promise<Downloads> {
  const directory = await mkdtemp(join(tmpdir(), "cds-download-"));
  const progress: DownloadProgress[] = [];
  const logged: string[] = [];
  const log = createLogger(
    { level: "trace", pretty: false },
    { write: (line: string) => void logged.push(line) },
  );
  const start = (file: string, options: Partial<DownloadOptions> = {}) =>
    downloadModel({
      source: parseModelUrl(/[:]/.test(file) ? file : `acme/tiny/${file}`, hub.url),
      directory,
      hub: hub.config(env),
      log,
      signal: new AbortController().signal,
      onProgress: (told) => void progress.push(told),
      firstBackoffMs: 1,
      ...options,
    });
  return {
    directory,
    progress,
    logged,
    start,
    async fail(file, options) {
      return start(file, options).then(
        (model) => {
          throw new Error(`${model.file} was downloaded`);
        },
        (error: unknown) => error,
      );
    },
    async [Symbol.asyncDispose]() {
      await rm(directory, { recursive: true, force: true });
    },
  };
}
