import { AppError, type ErrorCode } from "#schemas";
import { ApiError, toApiError } from "../../api-error.ts";

/** Memory may come free by itself: other models become idle, tasks end. */
const MEMORY_RETRY_SECONDS = 15;

export function modelNotFound(name: string): AppError {
  return new AppError("ModelNotFound", `The model "${name}" is not installed on this machine.`, {
    hint: "GET /admin/models lists those that are; POST /admin/download installs one.",
  });
}

/** An administrator said no. */
export function unloadedByAdministrator(name: string): AppError {
  return new AppError("Unavailable", `The model "${name}" was unloaded by an administrator.`, {
    hint: "An administrator can load it again: POST /admin/load.",
    reason: "model_unloaded",
  });
}

/** Requests load nothing here. */
export function notLoaded(name: string): AppError {
  return new AppError("Unavailable", `The model "${name}" is not loaded.`, {
    hint: "An administrator can load it: POST /admin/load. Requests do so themselves with CDS_LLM_AUTOLOAD=true.",
    reason: "model_unloaded",
  });
}

/** `everFits`: it would if nothing else ran. */
export function notEnoughMemory(needed: number, available: number, everFits: boolean): AppError {
  const megabytes = (bytes: number) => Math.ceil(bytes / 1e6);
  return new AppError(
    "Unavailable",
    `The model needs ${megabytes(needed)} MB of memory; ${megabytes(available)} MB are available.`,
    {
      hint: everFits
        ? "Try again later, unload another model, or load it with a smaller context_size or fewer sequences."
        : "This machine is too small for it: load it with a smaller context_size or fewer sequences, or a smaller model.",
      reason: "insufficient_memory",
      needed_bytes: needed,
      available_bytes: available,
      ...(everFits ? { retry_after_seconds: MEMORY_RETRY_SECONDS } : {}),
    },
  );
}

export function crashedTooOften(times: number, seconds: number): AppError {
  return new AppError("EngineUnavailable", `The model's process ended ${times} times within a minute.`, {
    hint: `It is started again in ${seconds} s; the server's log has the details.`,
    retry_after_seconds: seconds,
  });
}

export function serverStops(): AppError {
  return new AppError("Unavailable", "The server is stopping.", { hint: "Try again in a moment." });
}

/** Codes of their own in OpenAI's envelope; `reason` goes before them. */
const CODES: Partial<Record<ErrorCode, string>> = {
  InvalidModel: "invalid_model",
  EngineUnavailable: "engine_crashed",
  Timeout: "model_load_timeout",
};
/** What would fail again at once, or take as long again. */
const FUTILE: ReadonlySet<string | null | undefined> = new Set(["model_unloaded", "model_load_timeout"]);

/** An error of loading in the words of the model server's own routes. */
export function forClients(error: unknown): unknown {
  if (!(error instanceof AppError)) return error;
  const { status, message, options } = toApiError(error);
  const { reason } = error.details;
  const code = typeof reason === "string" ? reason : (CODES[error.code] ?? options.code);
  const again =
    FUTILE.has(code) || (code === "insufficient_memory" && options.retryAfterSeconds === undefined);
  return new ApiError(status, message, {
    ...options,
    ...(code === undefined ? {} : { code }),
    ...(again ? { shouldRetry: false } : {}),
  });
}
