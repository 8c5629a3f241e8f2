import { sweepOpenCalls } from "#database/ledger/index.ts";
import type { Db } from "#database/schema.ts";
import type { Log } from "#platform/log.ts";
import { type Repeating, repeat } from "#platform/repeat.ts";

const EVERY_MS = 60_000;
/** Younger calls of an instance without a heartbeat may be of one that is only just starting. */
const GRACE_MS = 60_000;

/**
 * Give back what calls of killed processes still hold: at once those of an earlier process of this very
 * instance, and every minute those of instances that are gone.
 */
export async function startSweeper(db: Db, log: Log, instance_id: string): Promise<Repeating> {
  const sweep = async (which: { instance_id?: string; older_than_ms: number }) => {
    const released = await sweepOpenCalls(db, which);
    if (released > 0) log.warn({ released }, "released model calls that a dead process left open");
  };
  // Older than this process: under a fixed INSTANCE_ID they would look alive for ever.
  await sweep({ instance_id, older_than_ms: Math.ceil(process.uptime() * 1000) });
  return repeat(log, "open model calls", EVERY_MS, () => sweep({ older_than_ms: GRACE_MS }));
}
