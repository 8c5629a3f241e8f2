import { fileURLToPath } from "node:url";
import { AppError } from "#schemas";
import type { SandboxHost } from "../../sandboxes.ts";
import type { Slot } from "../../slots.ts";
import type { SandboxExit, SandboxLog, SandboxProcess } from "../../types.ts";
import { serveFile } from "./file-server.ts";
import { encodeFrame, type Frame, FrameReader } from "./host/frames.ts";
import type { Loaded, ToHost } from "./host/protocol.ts";
import { WASM_LIMITS } from "./limits.ts";
import { type Outcome, parseHeader, parseReply, type Reply } from "./replies.ts";
import type { WasmFiles } from "./types.ts";

export interface Answer {
  outcome: Outcome;
  output: Uint8Array;
  loaded: Loaded | undefined;
}

interface Waiting {
  resolve: (answer: Answer) => void;
  reject: (error: unknown) => void;
  timer: NodeJS.Timeout;
}

const MIB = 1024 * 1024;
/** Largest frame of a host: a file, or both outputs; headers hold lists of exports. */
const FRAMES = {
  headerBytes: 8 * MIB,
  payloadBytes: Math.max(WASM_LIMITS.fileBytes, 2 * WASM_LIMITS.outputBytes),
};
/** Every instance waits for one answer at most; more than twice as many as can be open no honest host asks. */
const MAX_FILE_REQUESTS = 2 * WASM_LIMITS.instancesPerDomain;
const MAX_STDERR_CHARS = 2000;
const INSIDE = { node: "/opt/node/node", program: "/opt/wasm", packages: "/opt/node_modules" } as const;
const SHIM = "@bjorn3/browser_wasi_shim";

/** Programs and their places inside; all of them are only read. */
function mounts() {
  const here = fileURLToPath(new URL(".", import.meta.url)).replace(/\/$/, "");
  const shim = fileURLToPath(new URL("..", import.meta.resolve(SHIM))).replace(/\/$/, "");
  // It says that files are ES modules, which Node would otherwise find out by trying.
  const manifest = fileURLToPath(new URL("../../../package.json", import.meta.url));
  return [
    { source: process.execPath, target: INSIDE.node, mode: "ro" as const },
    { source: here, target: INSIDE.program, mode: "ro" as const },
    { source: shim, target: `${INSIDE.packages}/${SHIM}`, mode: "ro" as const },
    { source: manifest, target: "/opt/package.json", mode: "ro" as const },
  ];
}

/** The server's side of one module host: asks, and believes nothing. A host that breaks the rules is killed. */
export class HostProcess {
  /** Resolves when no process is left. */
  readonly gone: Promise<void>;
  readonly #process: SandboxProcess;
  readonly #slot: Slot;
  readonly #log: SandboxLog;
  readonly #waiting = new Map<number, Waiting>();
  readonly #files = new Map<string, WasmFiles>();
  readonly #ready = Promise.withResolvers<void>();
  #isReady = false;
  #fileRequests = 0;
  #orders = 0;
  #failure: AppError | undefined;
  #stderr = "";

  private constructor(process: SandboxProcess, slot: Slot, log: SandboxLog) {
    this.#process = process;
    this.#slot = slot;
    this.#log = log;
    this.#ready.promise.catch(() => undefined);
    const reader = new FrameReader(FRAMES, parseHeader);
    process.stdout.on("data", (chunk: Buffer) => this.#read(reader, chunk));
    process.stderr.on("data", (chunk: Buffer) => {
      this.#stderr = (this.#stderr + chunk.toString("latin1")).slice(-MAX_STDERR_CHARS);
    });
    for (const stream of [process.stdin, process.stdout, process.stderr]) stream.on("error", () => undefined);
    this.gone = process.exited.then(
      (exit) => this.#ended(exit),
      () => this.#ended({ code: null, signal: null }),
    );
  }

  /** Start one and wait until it listens. Throws AppError EngineUnavailable, Unavailable, Timeout. */
  static async start(host: SandboxHost, log: SandboxLog): Promise<HostProcess> {
    const slot = await host.slots.acquire(AbortSignal.timeout(WASM_LIMITS.startTimeoutMs));
    let started: HostProcess | undefined;
    try {
      const process = await host.start({
        name: "wasm-host",
        argv: [
          INSIDE.node,
          "--disallow-code-generation-from-strings",
          "--no-addons",
          `${INSIDE.program}/host/main.ts`,
        ],
        env: {},
        cwd: "/",
        mounts: mounts(),
        limits: {
          memoryBytes: WASM_LIMITS.domainMemoryBytes + WASM_LIMITS.hostMemoryBytes,
          processes: WASM_LIMITS.hostProcesses,
          fileBytes: MIB,
          tmpBytes: MIB,
        },
        slot,
      });
      started = new HostProcess(process, slot, log);
      const timer = setTimeout(() => started?.fail("did not start in time"), WASM_LIMITS.startTimeoutMs);
      await started.#ready.promise.finally(() => clearTimeout(timer));
      return started;
    } catch (error) {
      if (started === undefined) await slot.release();
      else await started.kill();
      throw error;
    }
  }

  get alive(): boolean {
    return this.#failure === undefined;
  }

  /** Answer this instance's requests for files from now on; without files, no more. */
  setFiles(instance: string, files: WasmFiles | undefined): void {
    if (files === undefined) this.#files.delete(instance);
    else this.#files.set(instance, files);
  }

  /**
   * Give an order and wait for its end, no longer than `timeoutMs` and a grace, after which the host is killed.
   * When `signal` aborts, the instance is ended. Throws AppError Unavailable, QuotaExceeded when the host is gone.
   */
  ask(
    make: (id: number) => Exclude<ToHost, { type: "cancel" | "file" }>,
    payload: Uint8Array,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<Answer> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#orders += 1;
    const id = this.#orders;
    const order = make(id);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const expect = (ms: number) =>
      setTimeout(() => this.fail("did not answer in time"), ms + WASM_LIMITS.graceMs);
    const waiting: Waiting = { resolve, reject, timer: expect(timeoutMs) };
    this.#waiting.set(id, waiting);
    const onAbort = () => {
      clearTimeout(waiting.timer);
      waiting.timer = expect(0);
      this.cancel(order.instance);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#send(order, payload);
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  /** End an instance, whatever it does. */
  cancel(instance: string): void {
    this.#send({ type: "cancel", instance });
  }

  /** End the process, because of `why`; resolves when nothing of it is left. */
  fail(why: string): void {
    if (this.#failure !== undefined) return;
    this.#log.warn({ why, stderr: this.#stderr }, "a module host is ended");
    this.#fall(
      new AppError(
        "Unavailable",
        "The process that ran the module was ended, as it did not answer as it should.",
        {
          hint: "Load the module again.",
        },
      ),
    );
    void this.kill().catch((error: unknown) =>
      this.#log.error({ err: error }, "a module host is left behind"),
    );
  }

  async kill(): Promise<void> {
    this.#fall(new AppError("Unavailable", "The module was ended.", { hint: "Load the module again." }));
    await this.#slot.release();
    await this.gone;
  }

  #send(order: ToHost, payload?: Uint8Array): void {
    if (this.#failure !== undefined) return;
    for (const part of encodeFrame(order, payload)) this.#process.stdin.write(part);
  }

  #read(reader: FrameReader, chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    try {
      for (const frame of reader.push(chunk)) this.#take(parseReply(frame.header), frame);
    } catch (error) {
      this.#log.debug({ err: error }, "a module host sent what it must not");
      this.fail("sent what it must not");
    }
  }

  #take(reply: Reply, { payload }: Frame): void {
    if (reply.type === "ready") {
      if (this.#isReady) throw new Error("ready twice");
      this.#isReady = true;
      this.#ready.resolve();
    } else if (reply.type === "file") {
      this.#answerFile(reply, payload);
    } else {
      const waiting = this.#waiting.get(reply.id);
      if (waiting === undefined) throw new Error("an answer to nothing");
      if (reply.outcome.stdoutBytes > payload.length) throw new Error("more output than bytes");
      this.#waiting.delete(reply.id);
      clearTimeout(waiting.timer);
      const { outcome, loaded } = reply;
      waiting.resolve({ outcome, output: payload, loaded });
    }
  }

  #answerFile(request: Extract<Reply, { type: "file" }>, payload: Uint8Array): void {
    this.#fileRequests += 1;
    if (this.#fileRequests > MAX_FILE_REQUESTS) throw new Error("too many requests for files at once");
    const { id, instance, operation, path } = request;
    void serveFile(this.#files.get(instance), operation, path, payload).then(({ errno, bytes }) => {
      this.#fileRequests -= 1;
      this.#send({ type: "file", id, errno }, bytes);
    });
  }

  /** No answer counts any more; who waits for one gets `failure`. */
  #fall(failure: AppError): void {
    this.#failure ??= failure;
    this.#ready.reject(this.#failure);
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(this.#failure);
    }
    this.#waiting.clear();
    this.#files.clear();
  }

  async #ended(exit: SandboxExit): Promise<void> {
    if (this.#failure === undefined) this.#log.warn({ exit, stderr: this.#stderr }, "a module host ended");
    const megabytes = Math.round(WASM_LIMITS.domainMemoryBytes / MIB);
    this.#fall(
      exit.limit === "memory"
        ? new AppError(
            "QuotaExceeded",
            `The modules together needed more than their ${megabytes} MB of memory.`,
            {
              hint: "Load the module again, and let it use less.",
            },
          )
        : new AppError("Unavailable", "The process that ran the module has ended.", {
            hint: "Load the module again.",
          }),
    );
    await this.#slot.release();
  }
}
