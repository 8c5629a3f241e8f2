import type { Log } from "#platform/log.ts";
import { type Repeating, repeat } from "#platform/repeat.ts";
import type { Db } from "../schema.ts";
import { collectBlobs } from "./blobs.ts";

const BATCH = 500;
const EVERY_MS = 10 * 60_000;

/** Remove unreferenced contents again and again (each instance may: they skip each other's). */
export function startBlobCollector(db: Db, log: Log, everyMs = EVERY_MS): Repeating {
  return repeat(log, "unreferenced contents", everyMs, async (signal) => {
    let removed = 0;
    for (let count = BATCH; count === BATCH && !signal.aborted; removed += count) {
      count = await collectBlobs(db, BATCH);
    }
    if (removed > 0) log.info({ removed }, "unreferenced contents removed");
  });
}
