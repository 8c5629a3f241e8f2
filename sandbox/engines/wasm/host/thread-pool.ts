import { Worker } from "node:worker_threads";

/** Memory that a thread's JavaScript may take; modules' memory does not count here. */
const HEAP_MB = 96;
/** Eight times what the rewriter lets frames take by its estimate; used only when touched. */
const STACK_MB = 256;

function newThread(): Worker {
  return new Worker(new URL("./thread.ts", import.meta.url), {
    env: {},
    argv: [],
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB, stackSizeMb: STACK_MB },
  });
}

/** Keeps one thread ready, so that a load need not wait for its start. */
export class ThreadPool {
  #spare: Worker | undefined;

  constructor() {
    this.prepare();
  }

  take(): Worker {
    const thread = this.#spare ?? newThread();
    thread.removeAllListeners();
    this.#spare = undefined;
    return thread;
  }

  /** Make the next one ready: not before a load is done, which wants the processor first. */
  prepare(): void {
    if (this.#spare !== undefined) return;
    const thread = newThread();
    thread.once("error", () => {
      if (this.#spare === thread) this.#spare = undefined;
    });
    this.#spare = thread;
  }
}
