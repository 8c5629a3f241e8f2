import { diskUse } from "#platform/host/host-load.ts";
import { type Repeating, repeat } from "#platform/repeat.ts";
import { Serial } from "#platform/serial.ts";
import { inSpan } from "#platform/telemetry.ts";
import { within } from "#platform/waiting.ts";
import { AppError } from "#schemas";
import type { SandboxLog } from "../types.ts";
import { Ages, type Clocks } from "./ages.ts";
import { Remover } from "./removal.ts";
import { type JanitorReport, type Occasion, Round, type Rules } from "./round.ts";
import type { CleanSource } from "./source.ts";

const EVERY_MS = 5 * 60_000;
const MAX_AGE_MS = 30 * 60_000;
const DISK_THRESHOLD = 0.85;
/** Of the threshold: once that has been crossed, it is cleaned until less is used than this. */
const DISK_TARGET = 0.8;
const REMOVAL_MS = 60_000;
const CLOSE_MS = 15_000;

export interface JanitorOptions {
  sources: readonly CleanSource[];
  /** Whose file systems must not fill up: the data directory, and what lies elsewhere. */
  places: readonly string[];
  log: SandboxLog;
  /** Between two rounds, give or take a quarter; 5 minutes. */
  everyMs?: number;
  /** What has been idle for longer goes; 30 minutes. */
  maxAgeMs?: number;
  /** Share of a disk, 0..1, above which younger things go too, the longest idle first; 0.85. */
  diskThreshold?: number;
  /** Share below which that ends; four fifths of the threshold. */
  diskTarget?: number;
  /** For one removal; 60 s. */
  removalMs?: number;
  /** For the last round; 15 s. */
  closeMs?: number;
  /** Used share of the disk at a path. */
  disk?: (path: string) => Promise<number>;
  clocks?: Clocks;
}

export interface Janitor extends AsyncDisposable {
  /** What the last round did. */
  readonly last: JanitorReport | undefined;
  /** Answers how to take it away again. */
  add(source: CleanSource): () => void;
  /** A round now, or after the one at work. Throws AppError Unavailable after `close`. */
  run(occasion?: Occasion): Promise<JanitorReport>;
  /** A last round, in bounded time; then no more. */
  close(): Promise<void>;
}

class OpenJanitor implements Janitor {
  readonly #rules: Rules;
  readonly #closeMs: number;
  readonly #sources: CleanSource[];
  readonly #remover: Remover;
  readonly #ages: Ages;
  readonly #repeating: Repeating;
  #last: JanitorReport | undefined;
  /** Rounds come one after the other. */
  readonly #rounds = new Serial();
  #closing: Promise<void> | undefined;

  constructor(options: JanitorOptions) {
    const { log, sources, places, diskThreshold = DISK_THRESHOLD } = options;
    this.#rules = {
      places,
      log,
      maxAgeMs: options.maxAgeMs ?? MAX_AGE_MS,
      diskThreshold,
      diskTarget: options.diskTarget ?? diskThreshold * DISK_TARGET,
      removalMs: options.removalMs ?? REMOVAL_MS,
      disk: options.disk ?? diskUse,
    };
    this.#closeMs = options.closeMs ?? CLOSE_MS;
    this.#sources = [...sources];
    this.#remover = new Remover(log);
    this.#ages = new Ages(options.clocks);
    void this.#enqueue("start", () => this.#leftWhileOpen());
    this.#repeating = repeat(log, "cleaning up", options.everyMs ?? EVERY_MS, async () => {
      await this.run("timer");
    });
  }

  get last(): JanitorReport | undefined {
    return this.#last;
  }

  add(source: CleanSource): () => void {
    this.#sources.push(source);
    return () => {
      const index = this.#sources.indexOf(source);
      if (index >= 0) this.#sources.splice(index, 1);
    };
  }

  run(occasion: Occasion = "asked"): Promise<JanitorReport> {
    if (this.#closing !== undefined) {
      return Promise.reject(new AppError("Unavailable", "The janitor has been closed."));
    }
    return this.#enqueue(occasion, () => this.#leftWhileOpen());
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Once we close, a round at work stops after the removal it is at. */
  #leftWhileOpen(): number {
    return this.#closing === undefined ? Number.POSITIVE_INFINITY : 0;
  }

  async #close(): Promise<void> {
    const end = performance.now() + this.#closeMs;
    const last = async () => {
      // Resolves when the round that the timer began has ended.
      await this.#repeating.close();
      await this.#enqueue("shutdown", () => end - performance.now());
    };
    await within(this.#closeMs, "the last cleaning up", last).catch((error: unknown) =>
      this.#rules.log.warn({ err: error }, "something was still being removed at the end"),
    );
  }

  #enqueue(occasion: Occasion, left: () => number): Promise<JanitorReport> {
    return this.#rounds.run(() => this.#round(occasion, left));
  }

  /** Never throws: what can fail is counted in the report. */
  async #round(occasion: Occasion, left: () => number): Promise<JanitorReport> {
    const { log } = this.#rules;
    const input = { occasion, left, rules: this.#rules, remover: this.#remover, ages: this.#ages };
    const report = await inSpan("sandbox.janitor.round", { occasion }, () =>
      new Round(input).run([...this.#sources]),
    );
    this.#last = report;
    if (report.removed > 0 || report.failed > 0) log.info({ ...report }, "cleaned up");
    return report;
  }
}

/**
 * MU-7: removes what nobody needs any more, at once and then again and again: what is left of servers that are no
 * more, what has been idle for long, and when a disk fills up also what has not. Who has such things adds a source.
 */
export function openJanitor(options: JanitorOptions): Janitor {
  return new OpenJanitor(options);
}
