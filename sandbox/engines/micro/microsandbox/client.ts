import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { AppError } from "#schemas";
import { signal as signalProcess } from "../../../process-tree.ts";
import type { FromHost, Order, ToHost } from "./protocol.ts";

const MAX_TEXT = 300;

interface Waiting {
  resolve: (result: unknown) => void;
  reject: (error: AppError) => void;
  onOutput: (stream: "stdout" | "stderr", data: Buffer) => void;
  timer: NodeJS.Timeout;
}

export interface ClientOptions {
  /** Directory for everything microsandbox keeps, the host process's own. */
  home: string;
  /** Whose rights the process has; null: the server's. */
  identity: { uid: number; gid: number } | null;
}

/** The server's end of the process that holds microsandbox's library. */
export class HostClient {
  /** Resolves when the process is gone. */
  readonly exited: Promise<void>;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #gone = false;

  constructor({ home, identity }: ClientOptions) {
    this.#child = fork(fileURLToPath(new URL("./host.ts", import.meta.url)), [], {
      env: {
        MSB_HOME: home,
        MSB_BACKEND: "local",
        HOME: home,
        TMPDIR: home,
        PATH: "/usr/local/bin:/usr/bin:/bin",
      },
      execArgv: ["--no-warnings"],
      cwd: "/",
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      serialization: "advanced",
      detached: true,
      ...(identity ?? {}),
    });
    const exited = Promise.withResolvers<void>();
    this.exited = exited.promise;
    const end = () => {
      this.#gone = true;
      // Whatever it had started is of its group.
      if (this.#child.pid !== undefined) signalProcess(-this.#child.pid, "SIGKILL");
      for (const { reject, timer } of this.#waiting.values()) {
        clearTimeout(timer);
        reject(gone());
      }
      this.#waiting.clear();
      exited.resolve();
    };
    this.#child.once("exit", end).once("error", end);
    this.#child.on("message", (message: FromHost) => this.#hear(message));
  }

  /** Leader of its own session and group. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Have something done; after `ms` the process, and with it every machine, is ended. Throws AppError. */
  ask(
    order: Order,
    ms: number,
    onOutput: Waiting["onOutput"] = () => undefined,
    told?: (id: number) => void,
  ) {
    if (this.#gone) return Promise.reject(gone());
    const id = this.#nextId++;
    told?.(id);
    return new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new AppError("Timeout", `microsandbox did not answer in ${ms} ms (${order.op}).`));
        this.kill();
      }, ms);
      this.#waiting.set(id, { resolve, reject, onOutput, timer });
      this.#send({ id, order });
    });
  }

  /** End the program that was started by the order `id`. */
  killProgram(id: number): void {
    this.#send({ kill: id });
  }

  kill(): void {
    if (this.#child.pid !== undefined && !this.#gone) signalProcess(-this.#child.pid, "SIGKILL");
  }

  #send(message: ToHost): void {
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  #hear(message: FromHost): void {
    const waiting = this.#waiting.get(message.id);
    if (waiting === undefined) return;
    if ("stream" in message) {
      waiting.onOutput(message.stream, Buffer.from(message.data));
      return;
    }
    this.#waiting.delete(message.id);
    clearTimeout(waiting.timer);
    if ("error" in message) {
      waiting.reject(new AppError("Unavailable", `microsandbox: ${message.error.slice(0, MAX_TEXT)}`));
    } else waiting.resolve(message.result);
  }
}

const gone = () =>
  new AppError("Unavailable", "The virtual machine has ended.", { hint: "Start another one." });
