import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import { AppError, type DownloadView } from "#schemas";
import { type DownloadedModel, downloadModel } from "../../hub/index.ts";
import type { ModelSource } from "../../hub/parse-url.ts";
import { DownloadJob, type DownloadRequest } from "./download-job.ts";
import { serverStops } from "./failures.ts";

/** At once; others wait. More would share the same line. */
const RUNNING = 2;
/** May wait. */
const WAITING = 16;
/** Kept to look at after they ended. */
const KEPT = 50;
/** A watcher sees the same again after so long, ms: proxies end connections on which nothing moves. */
const REPEAT_MS = 15_000;

export interface DownloadsOptions {
  directory: string;
  hub: Config["hub"];
  log: Log;
  /** The file is there. `startedAt` on the clock of `performance.now()`. Answers the model's name. */
  install: (model: DownloadedModel, request: DownloadRequest, startedAt: number) => Promise<string>;
}

/** Downloads in the background. They live as long as this process; a part that has arrived outlives it. */
export class Downloads {
  readonly #options: DownloadsOptions;
  /** In the order they were asked for. */
  readonly #jobs = new Map<string, DownloadJob>();
  readonly #running = new Map<DownloadJob, Promise<void>>();
  #closed = false;

  constructor(options: DownloadsOptions) {
    this.#options = options;
  }

  /** Under way or waiting. */
  get active(): number {
    return [...this.#jobs.values()].filter((job) => !job.isOver).length;
  }

  /** @throws AppError Conflict with download_id when that file or name is under way, RateLimited when too many wait. */
  start(request: DownloadRequest): DownloadView {
    if (this.#closed) throw serverStops();
    for (const job of this.#jobs.values()) {
      if (job.isOver || !sameTarget(job.request, request)) continue;
      throw new AppError("Conflict", "That is being downloaded already.", {
        hint: `Look at it with GET /admin/downloads, or cancel it: DELETE /admin/downloads/${job.id}.`,
        download_id: job.id,
      });
    }
    if (this.active >= RUNNING + WAITING) {
      throw new AppError("RateLimited", `${WAITING} downloads are waiting already.`, {
        hint: "Wait until one has ended, or cancel one.",
      });
    }
    const job = new DownloadJob(request);
    this.#jobs.set(job.id, job);
    this.#forgetOldest();
    this.#next();
    return job.view;
  }

  list(): DownloadView[] {
    return [...this.#jobs.values()].map(({ view }) => view);
  }

  /** End it; what has arrived is kept. Of no effect once it is over. @throws AppError NotFound. */
  async cancel(id: string): Promise<DownloadView> {
    const job = this.#job(id);
    await this.#cancel(job, cancelledByAdministrator());
    return job.view;
  }

  /**
   * How it is now, then every time something has changed (or after a while nothing has), until it is over.
   * @throws AppError NotFound, at once.
   */
  watch(id: string, signal: AbortSignal): AsyncIterable<DownloadView> {
    return watchJob(this.#job(id), signal);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#jobs.values()].map((job) => this.#cancel(job, stopped())));
  }

  async #cancel(job: DownloadJob, reason: AppError): Promise<void> {
    job.cancel(reason);
    const running = this.#running.get(job);
    if (running !== undefined) await running;
    else if (!job.isOver) job.fail(reason);
  }

  #job(id: string): DownloadJob {
    const job = this.#jobs.get(id);
    if (job !== undefined) return job;
    throw new AppError("NotFound", "There is no such download.", {
      hint: "Downloads are forgotten when the server starts anew; start it again to go on with it.",
    });
  }

  #next(): void {
    for (const job of this.#jobs.values()) {
      if (this.#running.size >= RUNNING || this.#closed) return;
      if (job.isOver || this.#running.has(job)) continue;
      const work = this.#run(job).finally(() => {
        this.#running.delete(job);
        this.#next();
      });
      this.#running.set(job, work);
    }
  }

  /** Never fails. */
  async #run(job: DownloadJob): Promise<void> {
    const { directory, hub, log, install } = this.#options;
    const { source, url } = job.request;
    const startedAt = performance.now();
    try {
      const onProgress = (progress: Parameters<DownloadJob["progress"]>[0]) => job.progress(progress);
      const file = await downloadModel({ source, directory, hub, log, signal: job.signal, onProgress });
      const model_id = await install(file, job.request, startedAt);
      job.finish(model_id);
      log.info({ download_id: job.id, model_id, url, bytes: file.bytes }, "model downloaded");
    } catch (error) {
      job.fail(error);
      log.warn({ download_id: job.id, url, err: error }, "a model was not downloaded");
    }
  }

  #forgetOldest(): void {
    for (const job of this.#jobs.values()) {
      if (this.#jobs.size <= KEPT) return;
      if (job.isOver) this.#jobs.delete(job.id);
    }
  }
}

async function* watchJob(job: DownloadJob, signal: AbortSignal): AsyncGenerator<DownloadView, void> {
  while (!signal.aborted) {
    const { version, view } = job;
    yield view;
    if (job.isOver && job.version === version) return;
    await job.changed(version, signal, REPEAT_MS);
  }
}

function sameTarget(one: DownloadRequest, other: DownloadRequest): boolean {
  if (one.model_id !== undefined && one.model_id === other.model_id) return true;
  return sourceKey(one.source) === sourceKey(other.source);
}

function sourceKey(source: ModelSource): string {
  const { repository, revision } = source;
  return JSON.stringify([repository, revision, "file" in source ? source.file : { quant: source.quant }]);
}

function cancelledByAdministrator(): AppError {
  return new AppError("Cancelled", "The download was cancelled.", {
    hint: "What has arrived is kept: start the download again to go on from there.",
  });
}

function stopped(): AppError {
  return new AppError("Cancelled", "The server stopped.", {
    hint: "What has arrived is kept: start the download again to go on from there.",
  });
}
