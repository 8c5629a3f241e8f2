import { runInNewContext } from "node:vm";

/**
 * The result of work that never lets go of the thread, ended by force when it is not done after `timeoutMs`: a
 * test's own time-out cannot fire while it runs. The bound is for work that would take for ever, not a figure.
 * @throws ERR_SCRIPT_EXECUTION_TIMEOUT.
 */
export function within<T>(timeoutMs: number, work: () => T): T {
  return runInNewContext("work()", { work }, { timeout: timeoutMs });
}
