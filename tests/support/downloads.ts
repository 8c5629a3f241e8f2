import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
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
import { ggufBytes, type HubFaults, sha256, startHub, type TestHub } from "./hub.ts";

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

/** A file that begins as a model does. */
export const TINY = ggufBytes(600_000);

export interface HubWithFaults extends AsyncDisposable {
  hub: TestHub;
  downloads: Downloads;
}

/** A hub with `tiny.gguf` that does something wrong, and downloads from it. */
export async function withFaults(
  faults: HubFaults,
  env: Record<string, string> = {},
  data = TINY,
): Promise<HubWithFaults> {
  const hub = await startHub({ "tiny.gguf": data }, faults);
  const downloads = await startDownloads(hub, env);
  return {
    hub,
    downloads,
    async [Symbol.asyncDispose]() {
      await downloads[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
    },
  };
}

/** Leave what an earlier download of `tiny.gguf` would: its first bytes and a note of what they are. */
export async function leavePart({ directory }: Downloads, bytes: number): Promise<void> {
  const part = join(directory, "tiny.gguf.part");
  await writeFile(part, TINY.subarray(0, bytes));
  await writeFile(`${part}.json`, JSON.stringify({ oid: sha256(TINY), size: TINY.length }));
}

/** How much of a file has arrived on the disk. */
export async function partSize({ directory }: Downloads, file = "tiny.gguf"): Promise<number | undefined> {
  return (await stat(join(directory, `${file}.part`)).catch(() => undefined))?.size;
}
