import { newId } from "#platform/ids.ts";
import { type AppError, type DownloadView, type LoadConfig, toAppError } from "#schemas";
import type { DownloadProgress } from "../../hub/index.ts";
import type { ModelSource } from "../../hub/parse-url.ts";

export interface DownloadRequest {
  source: ModelSource;
  /** As it was asked for. */
  url: string;
  /** Undefined: the file's name says. */
  model_id: string | undefined;
  config: LoadConfig | undefined;
}

/** One download, from the word to start it to its end, for whoever looks. */
export class DownloadJob {
  readonly id = newId("download");
  readonly request: DownloadRequest;
  readonly #abort = new AbortController();
  readonly #startedAt = new Date();
  #endedAt: Date | undefined;
  #modelId: string | undefined;
  #progress: Pick<DownloadView, "state" | "bytes" | "total" | "bytes_per_second">;
  #error: AppError | undefined;
  #version = 0;
  readonly #watchers = new Set<() => void>();

  constructor(request: DownloadRequest) {
    this.request = request;
    this.#modelId = request.model_id;
    this.#progress = { state: "queued", bytes: 0, total: 0, bytes_per_second: 0 };
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  get isOver(): boolean {
    return this.#endedAt !== undefined;
  }

  /** Counts changes of the view. */
  get version(): number {
    return this.#version;
  }

  get view(): DownloadView {
    const { code, message, details } = this.#error ?? {};
    return {
      id: this.id,
      model_id: this.#modelId ?? null,
      url: this.request.url,
      ...this.#progress,
      ...(code === undefined || message === undefined
        ? {}
        : { error: { code, message, ...(details?.hint === undefined ? {} : { hint: details.hint }) } }),
      started_at: this.#startedAt.toISOString(),
      ended_at: this.#endedAt?.toISOString() ?? null,
    };
  }

  /** Of the transfer; that the model is there is said by `finish` alone. */
  progress(progress: DownloadProgress): void {
    if (this.isOver) return;
    this.#progress = { ...progress, state: progress.state === "done" ? "verifying" : progress.state };
    this.#changed();
  }

  cancel(reason: AppError): void {
    this.#abort.abort(reason);
  }

  finish(model_id: string): void {
    this.#modelId = model_id;
    this.#end("done");
  }

  fail(error: unknown): void {
    this.#error = toAppError(error);
    this.#end(this.#error.code === "Cancelled" ? "cancelled" : "failed");
  }

  /** Resolves when the view has changed since `version`, the signal is aborted, or `timeoutMs` are over. */
  async changed(version: number, signal: AbortSignal, timeoutMs: number): Promise<void> {
    if (this.#version !== version || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#watchers.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      signal.addEventListener("abort", wake, { once: true });
      this.#watchers.add(wake);
    });
  }

  #end(state: DownloadView["state"]): void {
    this.#endedAt = new Date();
    this.#progress = { ...this.#progress, state, bytes_per_second: 0 };
    this.#changed();
  }

  #changed(): void {
    this.#version += 1;
    for (const wake of [...this.#watchers]) wake();
  }
}
