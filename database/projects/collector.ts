import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "#platform/log.ts";
import type { Db } from "../schema.ts";
import { collectBlobs } from "./blobs.ts";

const BATCH = 500;
const EVERY_MS = 10 * 60_000;

/**
 * Remove unreferenced contents again and again, every `everyMs` (each instance may: they skip each other's).
 * A failure is logged and tried again next time.
 */
export function startBlobCollector(db: Db, log: Log, everyMs = EVERY_MS): { close(): Promise<void> } {
  const stop = new AbortController();
  const { signal } = stop;
  const run = async () => {
    while (!signal.aborted) {
      // Instances that were started together do not stay together.
      const pause = everyMs * (0.75 + Math.random() / 2);
      await sleep(pause, undefined, { signal, ref: false }).catch(() => undefined);
      if (!signal.aborted) await collectAll(db, log, signal);
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

async function collectAll(db: Db, log: Log, signal: AbortSignal): Promise<void> {
  let removed = 0;
  try {
    for (let count = BATCH; count === BATCH && !signal.aborted; removed += count) {
      count = await collectBlobs(db, BATCH);
    }
  } catch (error) {
    log.warn({ err: error }, "unreferenced contents could not be removed");
  }
  if (removed > 0) log.info({ removed }, "unreferenced contents removed");
}
