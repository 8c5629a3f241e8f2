import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "./log.ts";

export interface Repeating {
  /** No further round; resolves when the one at work has ended. */
  close(): Promise<void>;
}

/**
 * Do a chore every `everyMs` (give or take a quarter, so that instances started together do not stay together).
 * Rounds never overlap; one that fails is logged and tried again next time. Keeps no process alive.
 */
export function repeat(
  log: Pick<Log, "warn">,
  name: string,
  everyMs: number,
  chore: (signal: AbortSignal) => Promise<void>,
): Repeating {
  const stop = new AbortController();
  const { signal } = stop;
  const run = async () => {
    while (!signal.aborted) {
      const pause = everyMs * (0.75 + Math.random() / 2);
      await sleep(pause, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      await chore(signal).catch((error: unknown) => log.warn({ err: error, chore: name }, "a chore failed"));
    }
  };
  const running = run();
  return {
    async close() {
      stop.abort();
      await running;
    },
  };
}
