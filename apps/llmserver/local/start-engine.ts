import type { Log } from "#platform/log.ts";
import { AppError, type ErrorCode } from "#schemas";
import { checkGgufHeader } from "../hub/gguf-header.ts";
import type { EngineEstimate, EngineLimits, FromEngine, LoadFailure } from "./engine/protocol.ts";
import { EngineModel } from "./engine-model.ts";
import { type Ending, EngineProcess } from "./engine-process.ts";
import type { LoadedModel, LoadOptions } from "./types.ts";

interface StartEngineLimits extends EngineLimits {
  /** From the word to load until it is loaded, ms: a large file on a slow disk. */
  loadMs: number;
  /** Between two signs of life asked of the process, ms. */
  pingMs: number;
  /** Signs of life missed in a row after which the process is killed: 30 s by default. */
  maxMissedPings: number;
}

const LIMITS: StartEngineLimits = {
  waiting: 64,
  loadMs: 600_000,
  pingMs: 5_000,
  maxMissedPings: 6,
};

export interface StartEngineOptions {
  model_id: string;
  /** The GGUF file. */
  path: string;
  load: LoadOptions;
  log: Log;
  /** Called once, before anything big is allocated. What it throws is what `startEngine` fails with. */
  admit: (estimate: EngineEstimate) => void | Promise<void>;
  /** Ends the loading at once. */
  signal: AbortSignal;
  limits?: Partial<StartEngineLimits>;
}

/** How a failure of the process's is told: a model that cannot be loaded here is its file's fault, or the machine's. */
const FAILURES: Readonly<Record<LoadFailure, { code: ErrorCode; hint: string }>> = {
  InvalidModel: { code: "InvalidModel", hint: "Download it again, or take another file." },
  UnsupportedModel: { code: "InvalidModel", hint: "Take a model of an architecture llama.cpp runs." },
  OutOfMemory: {
    code: "Unavailable",
    hint: "Unload another model, or load it with a smaller context_size or fewer sequences.",
  },
  EngineCrashed: { code: "EngineUnavailable", hint: "Try again; the server's log has the details." },
};

/** Signals of a program's own mistakes. */
const CRASHES = new Set<NodeJS.Signals>(["SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"]);

function failure(code: LoadFailure, message: string, cause?: unknown): AppError {
  return new AppError(FAILURES[code].code, message, { hint: FAILURES[code].hint }, cause);
}

/**
 * Load a model into a process of its own. No process is left behind when it fails.
 * @throws AppError InvalidModel, Unavailable (memory), EngineUnavailable, Timeout; what `admit` throws; the signal's reason.
 */
export async function startEngine(options: StartEngineOptions): Promise<LoadedModel> {
  await checkGgufHeader(options.path);
  options.signal.throwIfAborted();
  const limits = { ...LIMITS, ...options.limits };
  const log = options.log.child({ model_id: options.model_id });
  const engine = new EngineProcess({
    threads: options.load.threads ?? 1,
    pingMs: limits.pingMs,
    maxMissedPings: limits.maxMissedPings,
    log,
  });
  const timeout = AbortSignal.timeout(limits.loadMs);
  try {
    const signal = AbortSignal.any([options.signal, timeout]);
    const model = await loaded(engine, options, { waiting: limits.waiting }, signal);
    log.info({ pid: engine.pid, ...model.info }, "model loaded");
    void model.closed.then(({ wanted, reason }) => {
      if (wanted) log.info({ pid: engine.pid }, "model unloaded");
      else log.error({ pid: engine.pid, reason }, "a model's process ended");
    });
    return model;
  } catch (error) {
    await engine.kill();
    if (timeout.aborted && !options.signal.aborted) {
      throw new AppError("Timeout", `The model was not loaded within ${limits.loadMs / 1000} s.`);
    }
    throw error;
  }
}

/** What it means that the process ended while it was loading: it ran out of memory, or the file made it crash. */
function failureOf({ reason, signal }: Ending): AppError {
  const cause = new Error(`The process ${reason}.`);
  if (signal === "SIGKILL") {
    return failure("OutOfMemory", "The model's process was killed, most likely for want of memory.", cause);
  }
  if (signal !== null && CRASHES.has(signal)) {
    return failure(
      "InvalidModel",
      "The model's file makes the engine crash: it is broken or not supported.",
      cause,
    );
  }
  return failure("EngineCrashed", "The model's process ended while it was loading.", cause);
}

/** Speaks with the process until the model is loaded. */
function loaded(
  engine: EngineProcess,
  { path, load, admit }: StartEngineOptions,
  limits: EngineLimits,
  signal: AbortSignal,
): Promise<EngineModel> {
  return new Promise((resolve, reject) => {
    const aborted = () => reject(signal.reason);
    signal.addEventListener("abort", aborted, { once: true });
    void engine.ended.then((ending) => {
      signal.removeEventListener("abort", aborted);
      reject(failureOf(ending));
    });
    const take = async (message: FromEngine) => {
      if (message.type === "estimate") {
        await admit(message.estimate);
        engine.send({ type: "admitted" });
      } else if (message.type === "failed") {
        throw failure(message.code, message.message);
      } else if (message.type === "loaded") {
        signal.removeEventListener("abort", aborted);
        resolve(new EngineModel(engine, message.info));
      }
    };
    engine.onMessage = (message) => void take(message).catch(reject);
    engine.send({ type: "load", path, options: load, limits });
  });
}
