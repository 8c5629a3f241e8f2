import { type ChildProcess, fork } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { isObject } from "#platform/json.ts";
import type { Log } from "#platform/log.ts";
import type { FromEngine, ToEngine } from "./engine/protocol.ts";

const MAIN = fileURLToPath(new URL("./engine/main.ts", import.meta.url));
/** Kept of what the process says last, bytes: its reason, should it crash. */
const KEPT_STDERR_BYTES = 4096;
/** Threads of libuv besides those that compute: one decodes, the others choose tokens and read files. */
const IO_THREADS = 3;

export interface ProcessOptions {
  /** That compute. */
  threads: number;
  /** Between two signs of life asked for, ms. */
  pingMs: number;
  /** Signs of life missed in a row after which it is killed. */
  maxMissedPings: number;
  log: Log;
}

/** How a process ended. */
export interface Ending {
  wanted: boolean;
  /** In words. */
  reason: string;
  /** That ended it, if one did: its own crash, or someone's wish. */
  signal: NodeJS.Signals | null;
}

/** The process of one model: its messages, its life and its end. */
export class EngineProcess {
  readonly #child: ChildProcess;
  readonly #log: Log;
  readonly #heartbeat: NodeJS.Timeout;
  #stderr = "";
  #wanted = false;
  #hung = false;
  #beat = 0;
  #answered = 0;
  /** Every message but signs of life. */
  onMessage: (message: FromEngine) => void = () => {};
  readonly ended: Promise<Ending>;

  constructor({ threads, pingMs, maxMissedPings, log }: ProcessOptions) {
    this.#log = log;
    this.#child = fork(MAIN, [], {
      execPath: process.execPath,
      execArgv: [],
      // Empty but for this: the studio's environment holds keys, and libraries take options from theirs.
      env: { UV_THREADPOOL_SIZE: String(threads + IO_THREADS) },
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      // Measured: 106,000 messages/s against 88,000 for "advanced", and 30 ms less to start.
      serialization: "json",
    });
    this.#child.on("message", (message) => this.#take(message as FromEngine));
    this.#child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#hear(text));
    this.ended = new Promise((resolve) => {
      this.#child.once("error", (error) =>
        resolve(this.#ending(`could not be started: ${error.message}`, null)),
      );
      this.#child.once("exit", (code, signal) => resolve(this.#ending(reasonOf(code, signal), signal)));
    });
    this.#heartbeat = setInterval(() => this.#ping(maxMissedPings), pingMs);
    void this.ended.then(() => clearInterval(this.#heartbeat));
  }

  /** 0 when it could not be started. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get isAlive(): boolean {
    return this.#child.pid !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  send(message: ToEngine): void {
    // A process that has just ended reads nothing; `ended` tells whoever waits.
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  /** It has nothing to save. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#wanted = true;
    this.#child.kill("SIGKILL");
    await this.ended;
  }

  /** Resident memory, bytes; 0 where the system does not tell, or it is gone. */
  async memoryBytes(): Promise<number> {
    if (!this.isAlive) return 0;
    try {
      const status = await readFile(`/proc/${this.pid}/status`, "utf8");
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
    } catch {
      return 0;
    }
  }

  #take(message: FromEngine): void {
    if (!isObject(message)) return;
    if (message.type === "pong") this.#answered = message.beat;
    else this.onMessage(message);
  }

  #hear(text: string): void {
    this.#stderr = (this.#stderr + text).slice(-KEPT_STDERR_BYTES);
    this.#log.debug({ engine: text.trimEnd() }, "a model's process said");
  }

  /** Counted, not timed: a machine that slept has not let the process answer either. */
  #ping(maxMissed: number): void {
    if (this.#beat - this.#answered >= maxMissed) {
      this.#hung = true;
      this.#child.kill("SIGKILL");
      return;
    }
    this.send({ type: "ping", beat: ++this.#beat });
  }

  #ending(reason: string, signal: NodeJS.Signals | null): Ending {
    const last = this.#stderr.trim().split("\n").at(-1) ?? "";
    if (this.#wanted) return { wanted: true, reason: "unloaded", signal };
    if (this.#hung) return { wanted: false, reason: "did not answer any more and was killed", signal };
    return { wanted: false, reason: last === "" ? reason : `${reason}; it said last: ${last}`, signal };
  }
}

function reasonOf(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal === "SIGKILL") return "was killed (SIGKILL), by the system when memory ran out, or by someone";
  return signal === null ? `ended with code ${code}` : `crashed (${signal})`;
}
