import { Agent } from "undici";
import type { Runner as RunnerName } from "#agents";
import type { Database } from "#database";
import type { Config } from "#platform/config/config.ts";
import { Admission } from "#platform/host/admission.ts";
import type { Log } from "#platform/log.ts";
import type { TaskTokens } from "#platform/tokens/index.ts";
import type { Sandboxes } from "#sandbox";
import { NativeRunner } from "./native/runner.ts";
import { locateOpencode } from "./opencode/binary.ts";
import { OpencodeRunner } from "./opencode/runner.ts";
import { WarmPool } from "./opencode/warm-pool.ts";
import { Workplace } from "./opencode/workplace.ts";
import type { Runner } from "./runners/runner.ts";
import { Worker } from "./worker.ts";

export interface OrchestratorDeps {
  readonly database: Database;
  readonly config: Config;
  readonly log: Log;
  readonly sandboxes: Sandboxes;
  /** The model server, as in `http://127.0.0.1:6988`. */
  readonly llmUrl: string;
  readonly taskTokens: TaskTokens;
}

export interface Orchestrator {
  /** What is at work and what is kept warm, for health and tests. */
  status(): { active: number; idle: number; spare: number; processes: number };
  /**
   * Take no new task; let running ones finish for `graceMs`, put the rest back into the queue, end every process
   * and remove every directory.
   */
  close(graceMs: number): Promise<void>;
}

/**
 * Claims tasks and drives agents to their end: by our own loop, whose tools work in sandboxes, or by opencode inside of
 * one. Where opencode or the sandbox is missing, tasks fail with EngineUnavailable; the rest of the studio works.
 * @throws the database's errors.
 */
export async function startOrchestrator(deps: OrchestratorDeps): Promise<Orchestrator> {
  const { config, sandboxes, llmUrl } = deps;
  const log = deps.log.child({ part: "orchestrator" });
  const programs = once(async () => ({
    binary: await sandboxes.reachable(locateOpencode(config.run.opencodeBin)),
    node: await sandboxes.reachable(process.execPath),
  }));
  const dispatcher = new Agent({ connectTimeout: 5000 });
  const admission = new Admission({
    memoryThreshold: config.queue.memoryThreshold,
    diskThreshold: config.queue.diskThreshold,
    processBytes: config.run.memoryEstimateBytes,
    dataDir: config.dataDir,
  });
  const pool = new WarmPool({
    ...config.run,
    open: async (signal) =>
      Workplace.open({ sandboxes, config, log, llmUrl, dispatcher, ...(await programs()) }, signal),
    overBytes: (starting) => admission.overBytes(starting),
    log,
  });
  const { maxOutputTokens } = config.run;
  const runners = {
    native: new NativeRunner({ ...deps, log, dispatcher }),
    opencode: new OpencodeRunner({ pool, maxOutputTokens }),
  } satisfies Record<RunnerName, Runner>;
  const worker = await Worker.start({
    ...deps,
    log,
    runners,
    host: sandboxes,
    admission,
    load: () => pool.load,
  });
  let closing: Promise<void> | undefined;
  const close = async (graceMs: number) => {
    await worker.close(graceMs);
    for (const runner of Object.values(runners)) await runner.close();
    await dispatcher.destroy();
  };
  return {
    status: () => {
      const { idle, spare, all } = pool.counts;
      return { active: worker.active, idle, spare, processes: all };
    },
    close: (graceMs) => {
      closing ??= close(graceMs);
      return closing;
    },
  };
}

/** Make a value when it is first needed, again when that failed. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
}
