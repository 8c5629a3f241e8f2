import { MessageChannel, type MessagePort, type Worker } from "node:worker_threads";
import {
  type CallOrder,
  type Compiled,
  type FromWorker,
  failedOutcome,
  type HostError,
  type HostErrorCode,
  type LoadOrder,
  type Outcome,
  type ToWorker,
  type WasmExport,
} from "./protocol.ts";

const FLAG_BYTES = 4;

export interface HostedEvents {
  compiled(compiled: Compiled): void;
  done(id: number, outcome: Outcome, output: Uint8Array, exports: WasmExport[] | undefined): void;
  file(message: Extract<FromWorker, { kind: "file" }>): void;
  /** Its thread is gone, and nothing more will come. */
  ended(): void;
}

/** A module as the main thread sees it: a thread, and the one thing that it is doing. */
export class Hosted {
  readonly #thread: Worker;
  readonly #events: HostedEvents;
  readonly #flag = new Int32Array(new SharedArrayBuffer(FLAG_BYTES));
  readonly #answers: MessagePort;
  readonly #theirs: MessagePort;
  /** The order it works on. */
  #busy: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #dead = false;

  constructor(thread: Worker, events: HostedEvents) {
    this.#thread = thread;
    this.#events = events;
    const { port1, port2 } = new MessageChannel();
    this.#answers = port1;
    this.#theirs = port2;
    thread.on("message", (message: FromWorker) => this.#take(message));
    thread.on("error", (error: NodeJS.ErrnoException) => {
      const memory = error.code === "ERR_WORKER_OUT_OF_MEMORY";
      this.#end(
        "WasmTrap",
        memory ? "The module's thread ran out of memory." : "The module's thread failed.",
        {
          kind: memory ? "out of memory" : "thread",
        },
      );
    });
    thread.on("exit", () => this.#end("Unavailable", "The module's thread has ended."));
  }

  load(order: LoadOrder, code: { bytes: Uint8Array } | { compiled: Compiled }, stdin: Uint8Array): void {
    this.#begin(order.id, order.timeoutMs);
    const message: ToWorker = { kind: "load", order, code, stdin, flag: this.#flag, files: this.#theirs };
    this.#thread.postMessage(message, [this.#theirs]);
  }

  call(order: CallOrder): void {
    this.#begin(order.id, order.timeoutMs);
    this.#thread.postMessage({ kind: "call", order } satisfies ToWorker);
  }

  limit(id: number, memoryPages: number, timeoutMs: number): void {
    this.#begin(id, timeoutMs);
    this.#thread.postMessage({ kind: "limit", id, memoryPages } satisfies ToWorker);
  }

  /** The server's answer to what the module waits for. */
  answerFile(errno: number, bytes: Uint8Array): void {
    if (this.#dead) return;
    this.#answers.postMessage({ errno, bytes });
    Atomics.add(this.#flag, 0, 1);
    Atomics.notify(this.#flag, 0);
  }

  /** End the thread, whatever it does; what it was doing fails with Cancelled. */
  cancel(): void {
    this.#end("Cancelled", "The module was ended.");
  }

  #begin(id: number, timeoutMs: number): void {
    this.#busy = id;
    this.#timer = setTimeout(() => {
      this.#end("Timeout", `The module did not end within ${timeoutMs} ms.`, { timeoutMs });
    }, timeoutMs);
  }

  #take(message: FromWorker): void {
    if (this.#dead) return;
    if (message.kind === "compiled") this.#events.compiled(message.compiled);
    else if (message.kind === "file") this.#events.file(message);
    else if (message.id === this.#busy) {
      this.#settle();
      const { outcome, output, exports } = message;
      this.#events.done(message.id, outcome, output, exports);
      if (outcome.dead) this.#end("Unavailable", "The module has ended.");
    }
  }

  #settle(): void {
    clearTimeout(this.#timer);
    this.#busy = undefined;
  }

  #end(code: HostErrorCode, message: string, details: HostError["details"] = {}): void {
    if (this.#dead) return;
    this.#dead = true;
    const busy = this.#busy;
    this.#settle();
    this.#answers.close();
    const finish = () => {
      if (busy !== undefined) {
        this.#events.done(busy, failedOutcome({ code, message, details }), new Uint8Array(), undefined);
      }
      this.#events.ended();
    };
    // The answer says that nothing runs any more.
    this.#thread.terminate().then(finish, finish);
  }
}
