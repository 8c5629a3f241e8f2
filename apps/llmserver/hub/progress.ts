import type { Log } from "#platform/log.ts";

export interface DownloadProgress {
  /** Of the file, those kept from an earlier start included. */
  bytes: number;
  /** 0 while it is not known. */
  total: number;
  bytes_per_second: number;
  state: "resolving" | "downloading" | "verifying" | "done";
}

/** Never told more often. */
const REPORT_MS = 250;
/** The speed is that of the last seconds. */
const SPEED_WINDOW_MS = 5000;

/** Tells how far a download is: at most every 250 ms, and at its end. */
export class Progress implements Disposable {
  readonly #tell: (progress: DownloadProgress) => void;
  readonly #log: Log;
  readonly #now: () => number;
  #timer: NodeJS.Timeout | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;
  #state: DownloadProgress["state"] = "resolving";
  #bytes = 0;
  #total = 0;
  /** Bytes that came over the network. */
  #received = 0;
  #samples: { at: number; received: number }[] = [];

  constructor(tell: (progress: DownloadProgress) => void, log: Log, now = () => performance.now()) {
    this.#tell = tell;
    this.#log = log;
    this.#now = now;
  }

  /** What is known has changed; told now, or when the time has come. */
  update(change: Partial<Pick<DownloadProgress, "bytes" | "total" | "state">> & { received?: number }): void {
    this.#state = change.state ?? this.#state;
    this.#bytes = change.bytes ?? this.#bytes;
    this.#total = change.total ?? this.#total;
    this.#received += change.received ?? 0;
    const wait = this.#toldAt + REPORT_MS - this.#now();
    if (wait <= 0 || this.#state === "done") this.#report();
    else this.#timer ??= setTimeout(() => this.#report(), wait).unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #report(): void {
    this[Symbol.dispose]();
    this.#toldAt = this.#now();
    const progress: DownloadProgress = {
      bytes: this.#bytes,
      total: this.#total,
      bytes_per_second: this.#speed(),
      state: this.#state,
    };
    try {
      this.#tell(progress);
    } catch (error) {
      // Called from a timer, too, where nobody would catch it.
      this.#log.error({ err: error }, "whoever listens to a download's progress failed");
    }
  }

  #speed(): number {
    const at = this.#toldAt;
    const oldest = this.#samples.find((sample) => sample.at >= at - SPEED_WINDOW_MS);
    this.#samples = this.#samples.filter((sample) => sample.at >= at - SPEED_WINDOW_MS);
    this.#samples.push({ at, received: this.#received });
    if (oldest === undefined || oldest.at >= at) return 0;
    return Math.round(((this.#received - oldest.received) * 1000) / (at - oldest.at));
  }
}
