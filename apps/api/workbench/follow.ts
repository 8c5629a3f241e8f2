import type { Log } from "#platform/log.ts";
import { repeat } from "#platform/repeat.ts";
import { watchDirectory } from "#sandbox";
import { isNeverKept } from "#workspaces/ignored.ts";
import type { Flushed } from "#workspaces/live-workspace.ts";
import type { WorkspaceUse } from "#workspaces/live-workspaces.ts";

/** How soon others' revisions appear on disk. */
const REFRESH_MS = 2000;
/** How long the files are to be quiet before a revision is made, and how long that is waited for. */
const DEBOUNCE_MS = 700;
const MAX_WAIT_MS = 5000;

export interface FollowOptions {
  readonly summary: string;
  readonly log: Log;
  /** Something has been kept, or could not be (warnings). */
  onFlushed(flushed: Flushed): void;
}

/**
 * Keep a workspace and its project in step while programs run in it: what they change becomes revisions as it goes,
 * what others change appears on disk.
 */
export async function followWorkspace(use: WorkspaceUse, options: FollowOptions): Promise<AsyncDisposable> {
  const { workspace } = use;
  const { log, summary, onFlushed } = options;
  const flush = async () => {
    const flushed = await use.flush(summary);
    if (flushed.revision !== undefined || flushed.change_id !== undefined || flushed.warnings.length > 0) {
      onFlushed(flushed);
    }
  };
  // One at work and one to come are enough, however much changes meanwhile.
  let working = false;
  let again = false;
  const flushSoon = async () => {
    again = true;
    if (working) return;
    working = true;
    while (again) {
      again = false;
      await flush();
    }
    working = false;
  };
  const watch = await watchDirectory(workspace.work, {
    ignore: isNeverKept,
    debounceMs: DEBOUNCE_MS,
    maxWaitMs: MAX_WAIT_MS,
    onChange: () => void flushSoon(),
    onError: (error) => log.warn({ err: error }, "a workspace is not watched any more"),
  });
  // What was changed before the watch was set.
  void flushSoon();
  const refreshing = repeat(log, "refresh a workspace", REFRESH_MS, () => workspace.refresh());
  return {
    async [Symbol.asyncDispose]() {
      await watch.close();
      await refreshing.close();
    },
  };
}
