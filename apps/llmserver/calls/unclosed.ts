import type { Log } from "#platform/log.ts";
import { type Repeating, repeat } from "#platform/repeat.ts";
import { AppError } from "#schemas";

const EVERY_MS = 5000;

/** How a call is closed in the ledger; idempotent. */
type Close = () => Promise<unknown>;

/**
 * Calls whose end could not be written when it came, the database being away: their holds stay, and what they cost is
 * not charged, until that has been made up for. A process that dies with some leaves them to the next one's sweep.
 */
export class UnclosedCalls {
  readonly #waiting = new Map<string, Close>();
  readonly #log: Log;
  #chore: Repeating | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Close it as soon as that can be done. */
  add(call_id: string, close: Close): void {
    this.#waiting.set(call_id, close);
    this.#chore ??= repeat(this.#log, "calls to be closed", EVERY_MS, () => this.retry());
  }

  /** Try all of them once. @throws what the first that failed did; those before it are closed. */
  async retry(): Promise<void> {
    for (const [call_id, close] of this.#waiting) {
      await close().catch((error: unknown) => {
        // Its hold never came to be, or went with its user.
        if (!(error instanceof AppError) || error.code !== "NotFound") throw error;
      });
      this.#waiting.delete(call_id);
      this.#log.warn({ call_id }, "a call was closed in the ledger late");
    }
  }

  /** One last try, and no more after it. Never throws. */
  async close(): Promise<void> {
    await this.#chore?.close();
    await this.retry().catch((error: unknown) => {
      this.#log.error({ err: error, calls: this.size }, "calls stay open until the next start");
    });
  }
}
