import { isObject } from "#platform/json.ts";
import { AppError } from "#schemas";

/** What another attempt may mend: `answer` is what the caller is told when there is none. */
export class TransientFailure extends Error {
  readonly answer: AppError;
  /** The other side asked to be left alone for so long, s. */
  readonly afterSeconds: number | undefined;

  constructor(answer: AppError, afterSeconds?: number) {
    super(answer.message, { cause: answer });
    this.name = "TransientFailure";
    this.answer = answer;
    this.afterSeconds = afterSeconds;
  }
}

/** Statuses below 500 that say: later. */
const RETRIED = new Set([408, 425, 429]);
/** A connection that broke, was refused or was answered with garbage; anything else (certificates) stays as it is. */
const BROKEN_CONNECTION =
  /^(ECONN\w+|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|UND_ERR_(SOCKET|CONNECT_TIMEOUT|RES_CONTENT_LENGTH_MISMATCH)|HPE_\w+)$/;

/** An error of downloading, safe to show. */
export function downloadFailed(message: string, hint?: string, cause?: unknown): AppError {
  return new AppError("DownloadFailed", message, hint === undefined ? {} : { hint }, cause);
}

/** What a caller who left is told: the signal's own reason where it is one of ours. */
export function cancelled(signal: AbortSignal): AppError {
  if (signal.reason instanceof AppError) return signal.reason;
  const hint = "What has arrived is kept: start the download again to go on from there.";
  return new AppError("Cancelled", "The download was cancelled.", { hint }, signal.reason);
}

/** What went wrong in an attempt, sorted: another attempt may help, or not. Neither tells an address. */
export function sortFailure(error: unknown): AppError | TransientFailure {
  if (error instanceof AppError || error instanceof TransientFailure) return error;
  const code = isObject(error) && typeof error.code === "string" ? error.code : undefined;
  // A mistake of ours is no failure of the network.
  if (code === undefined) throw error;
  if (code === "CDS_REFUSED_ADDRESS") {
    return downloadFailed(
      "The download leads to an address that is not allowed: a private or link-local one.",
      "A mirror in a private network must be set by HF_ENDPOINT and serve the files itself.",
      error,
    );
  }
  const failed = downloadFailed(
    `The model hub cannot be reached (${code}).`,
    "Check this server's way to the internet and HF_ENDPOINT; what has arrived is kept.",
    error,
  );
  return BROKEN_CONNECTION.test(code) ? new TransientFailure(failed) : failed;
}

/** The hub, or where it led to, answered with another status than wanted. */
export function statusFailure(status: number, afterSeconds: number | undefined): AppError | TransientFailure {
  if (status >= 500 || RETRIED.has(status)) {
    const failed = downloadFailed(
      `The model hub answered with status ${status}.`,
      "Try again later; what has arrived is kept.",
    );
    return new TransientFailure(failed, afterSeconds);
  }
  if (status === 401 || status === 403) {
    return downloadFailed(
      `The model hub refused (status ${status}): the repository is private or gated, or does not exist.`,
      "Set HF_TOKEN to a token that may read it, after accepting the model's licence on the hub.",
    );
  }
  if (status === 404) {
    return new AppError("NotFound", "The model hub has no such repository, revision or file.", {
      hint: "Compare owner, repository, revision and file with the hub's page.",
    });
  }
  return downloadFailed(`The model hub answered with status ${status}.`);
}

/** The disk refused. Names no path: the server's log has the cause. */
export function storageFailure(error: unknown): AppError {
  const code = isObject(error) && typeof error.code === "string" ? error.code : undefined;
  if (error instanceof AppError || code === undefined) throw error;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const hint = "Free some space and start the download again: what has arrived is kept.";
    return new AppError("QuotaExceeded", "The disk is full.", { hint }, error);
  }
  return new AppError(
    "DownloadFailed",
    `The models directory cannot be used (${code}).`,
    { hint: "It must be writable for this server, on a file system with hard links." },
    error,
  );
}
