import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import type { Outcome, Task } from "./engine-child.ts";

const CHILD = fileURLToPath(new URL("./engine-child.ts", import.meta.url));
/** For one task, ms. Only what would never end takes so long. */
const TASK_MS = 60_000;
/** To end by itself, ms. */
const END_MS = 30_000;
/** Of its last words. */
const KEPT_CHARACTERS = 2000;

/** The engine's process as its test sees it: one task at a time. */
export class EngineProcess {
  readonly #child: ChildProcess = fork(CHILD, { stdio: ["ignore", "ignore", "pipe", "ipc"] });
  #lastWords = "";

  constructor() {
    this.#child.stderr?.on("data", (piece: Buffer) => {
      this.#lastWords = (this.#lastWords + piece.toString()).slice(-KEPT_CHARACTERS);
    });
  }

  /** @throws EngineEnded when the process ends; Error what the engine answers it with, or after a minute. */
  async ask<T>(task: Task): Promise<T> {
    const over = new AbortController();
    const signal = AbortSignal.any([over.signal, AbortSignal.timeout(TASK_MS)]);
    try {
      const ended = once(this.#child, "close", { signal }).then(([code, killer]) => {
        throw new EngineEnded(code ?? killer, this.#lastWords);
      });
      const answered = once(this.#child, "message", { signal });
      this.#child.send(task);
      const [outcome] = (await Promise.race([answered, ended])) as [Outcome];
      if ("error" in outcome) throw new Error(outcome.error);
      return outcome.result as T;
    } finally {
      over.abort();
    }
  }

  /** Let it end; how it did: 0 when all is well. Killed when it does not. */
  async end(): Promise<number | NodeJS.Signals> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return exitCode ?? signalCode ?? 0;
    const exited = once(this.#child, "exit");
    const killer = setTimeout(() => this.#child.kill("SIGKILL"), END_MS);
    if (this.#child.connected) this.#child.disconnect();
    const [code, signal] = (await exited) as [number | null, NodeJS.Signals | null];
    clearTimeout(killer);
    return code ?? signal ?? 0;
  }
}

/** The engine took its process with it. */
export class EngineEnded extends Error {
  readonly how: number | NodeJS.Signals;

  constructor(how: number | NodeJS.Signals, lastWords: string) {
    super(`The engine's process ended: ${how}. ${lastWords}`);
    this.name = "EngineEnded";
    this.how = how;
  }
}
