import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Seeds, SeedsDone } from "./seeds-thread.ts";

/** Seeds a thread is sent at a time. */
const PORTION = 1000;
const THREADS = 2;

/** Live through seeds 1 to `total`, on two threads; none is left out, however long it takes. */
export async function liveThrough(total: number): Promise<SeedsDone> {
  const failed: number[] = [];
  const counts: Record<string, number> = {};
  let happened = 0;
  let next = 1;
  const work = async () => {
    const thread = new Worker(new URL("./seeds-thread.ts", import.meta.url));
    try {
      while (next <= total) {
        const seeds: Seeds = { first: next, count: Math.min(PORTION, total - next + 1) };
        next += seeds.count;
        const answer = once(thread, "message");
        thread.postMessage(seeds);
        const [done] = (await answer) as [SeedsDone];
        failed.push(...done.failed);
        happened += done.happened;
        for (const [name, times] of Object.entries(done.counts)) counts[name] = (counts[name] ?? 0) + times;
      }
    } finally {
      await thread.terminate();
    }
  };
  await Promise.all(Array.from({ length: THREADS }, work));
  return { failed: failed.sort((a, b) => a - b), happened, counts };
}
