import { AppError, type TaskError } from "#schemas";
import { AcpError } from "../acp/client.ts";
import type { BridgeRun } from "../bridge/bridge.ts";
import { RunStopped, type StopReason } from "./run-stop.ts";

const MAX_MESSAGE_CHARS = 500;
/** Before the agent had its prompt, only these are the task's own fault; everything else is worth another try. */
const FINAL = new Set(["NotFound", "EngineUnavailable", "InvalidParams", "QuotaExceeded", "Forbidden"]);

/** An AppError as its task's owner sees it. */
export function toTaskError(error: AppError): TaskError {
  const { hint } = error.details;
  return { code: error.code, message: error.message, ...(hint === undefined ? {} : { hint }) };
}

/** Whether a failure from before the prompt was sent may go away by itself. */
export function worthRetry(error: unknown): boolean {
  return !(error instanceof AppError && FINAL.has(error.code));
}

/** Whether an error says all there is to know: everything else is looked into in the server's log. */
export function isExpected(error: unknown): boolean {
  return error instanceof AppError || error instanceof AcpError || error instanceof RunStopped;
}

/** What went wrong before the prompt was sent. */
export function startFailure(error: unknown): TaskError {
  if (error instanceof AppError) return toTaskError(error);
  return {
    code: "InternalError",
    message: "The run could not be started.",
    hint: "Try again; the server's log has the details.",
  };
}

/** What went wrong after it: the model call's own failure says more than what opencode made of it. */
export function runFailure(
  error: unknown,
  calls: { readonly error: TaskError | undefined } | undefined,
  exit: AppError | undefined,
): TaskError {
  if (exit !== undefined) return toTaskError(exit);
  if (calls?.error !== undefined) return calls.error;
  if (error instanceof AppError) return toTaskError(error);
  if (error instanceof AcpError) {
    const message = error.message.replace(/^Internal error: /, "").slice(0, MAX_MESSAGE_CHARS);
    return { code: "RunFailed", message: `The agent failed: ${message}` };
  }
  return { code: "InternalError", message: "The run failed.", hint: "The server's log has the details." };
}

/**
 * Why an ended prompt is no success, if it is none: only opencode's `end_turn` after an answer that the model
 * itself finished counts. (A retry that was broken off also says `end_turn`.)
 */
export function finishFailure(
  stopReason: string,
  calls: BridgeRun,
  maxOutputTokens: number,
): TaskError | undefined {
  if (calls.error !== undefined) return calls.error;
  const { lastFinish } = calls;
  if (lastFinish === "length" || lastFinish === "content_filter")
    return endFailure(lastFinish, maxOutputTokens);
  if (stopReason !== "end_turn" || lastFinish === undefined || lastFinish === "tool_calls") {
    return endFailure(stopReason, maxOutputTokens);
  }
  return undefined;
}

/** Why a turn that ended by itself is none, by the word it ended with. */
export function endFailure(reason: string, maxOutputTokens: number): TaskError {
  switch (reason) {
    case "length":
      return {
        code: "RunFailed",
        message: `The model's answer was cut off at its limit of ${maxOutputTokens} tokens.`,
        hint: "Ask for less at a time, or raise CDS_MAX_TOKENS.",
      };
    case "content_filter":
      return { code: "RunFailed", message: "The model's provider withheld the answer (content filter)." };
    case "doom_loop":
      return {
        code: "RunFailed",
        message: "The agent made the same call again and again and was stopped.",
        hint: "Say more exactly what is to be done, or choose another model.",
      };
    case "max_steps":
      return {
        code: "RunFailed",
        message: "The agent took more steps than a task may.",
        hint: "Ask for less at a time, or raise CDS_MAX_MODEL_CALLS.",
      };
    default:
      return {
        code: "RunFailed",
        message: `The agent stopped before it had finished (${reason}).`,
        hint: "Dispatch the task again.",
      };
  }
}

/** How a run that was ended for filling the disk is told. */
export const DISK_FAILURE: TaskError = {
  code: "QuotaExceeded",
  message: "The run was ended because it wrote too much while the server's disk was nearly full.",
  hint: "Have less generated at a time.",
};

/** How a run that the clock ended is told. */
export function timeFailure(
  reason: Extract<StopReason, "timeout" | "silence">,
  limits: { timeoutMs: number; silenceMs: number },
  modelAsked: boolean,
): TaskError {
  if (reason === "timeout") {
    return {
      code: "Timeout",
      message: `The run took longer than ${seconds(limits.timeoutMs)}.`,
      hint: "Ask for less at a time, or raise CDS_RUN_TIMEOUT_MS.",
    };
  }
  const waited = seconds(limits.silenceMs);
  if (modelAsked) {
    return {
      code: "ProviderTimeout",
      message: `The model has sent nothing for ${waited}.`,
      hint: "Its provider is slow or away; dispatch the task again, or choose another model.",
    };
  }
  return {
    code: "Timeout",
    message: `The agent gave no sign of life for ${waited}.`,
    hint: "Dispatch the task again, or raise CDS_RUN_SILENCE_MS.",
  };
}

function seconds(ms: number): string {
  return `${Math.round(ms / 100) / 10} s`;
}
