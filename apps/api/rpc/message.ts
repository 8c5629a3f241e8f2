import { parseForeignJson } from "#platform/json.ts";
import { AppError } from "#schemas";

/** What identifies a request: echoed as it came. */
export type RpcId = string | number | null;

/** One request object that has the right form. */
export interface RpcRequest {
  readonly method: string;
  /** As sent: an object or an array; undefined when left out. */
  readonly params: unknown;
  /** Undefined for a notification, which is never answered. */
  readonly id: RpcId | undefined;
}

/** A request object without the right form: answered with `error`. */
export interface BadRequest {
  readonly error: AppError;
  readonly id: RpcId;
}

const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * Bytes to a JSON value.
 * @throws AppError ParseError for broken UTF-8 and for broken JSON.
 */
export function parseMessage(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new AppError("ParseError", "The request is not valid UTF-8.", {
      hint: "Send JSON encoded as UTF-8.",
    });
  }
  if (text.trim() === "") {
    throw new AppError("ParseError", "The request is empty.", {
      hint: "Send a JSON-RPC 2.0 request object.",
    });
  }
  try {
    return parseForeignJson(text);
  } catch (error) {
    // V8 quotes what was sent around the fault; the place alone is enough and repeats nothing.
    const place =
      error instanceof Error ? /at position \d+( \(line \d+ column \d+\))?/.exec(error.message) : null;
    throw new AppError("ParseError", `The request is not valid JSON${place === null ? "" : ` ${place[0]}`}.`);
  }
}

/** Check one member of a message for the form of JSON-RPC 2.0 section 4. */
export function readRequest(value: unknown): RpcRequest | BadRequest {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return invalid(null, "A request is an object.");
  }
  const { jsonrpc, method, params, id } = value as Record<string, unknown>;
  const hasId = Object.hasOwn(value, "id");
  if (hasId && !isId(id)) {
    const hint = typeof id === "number" ? "Send numbers beyond 2^53 as a string." : undefined;
    return invalid(null, "`id` is a string, a number or null.", hint);
  }
  const echo = hasId ? (id as RpcId) : null;
  if (jsonrpc !== "2.0") return invalid(echo, '`jsonrpc` is exactly "2.0".');
  if (typeof method !== "string") return invalid(echo, "`method` is a string.");
  if (Object.hasOwn(value, "params") && (typeof params !== "object" || params === null)) {
    return invalid(echo, "`params` is an object, or left out.");
  }
  return { method, params, id: hasId ? (id as RpcId) : undefined };
}

/** An id must come back the same, so a number that JSON.parse has already rounded is none. */
function isId(id: unknown): boolean {
  if (typeof id === "number") return Number.isFinite(id) && Math.abs(id) <= Number.MAX_SAFE_INTEGER;
  return typeof id === "string" || id === null;
}

function invalid(id: RpcId, message: string, hint?: string): BadRequest {
  return { id, error: new AppError("InvalidRequest", message, hint === undefined ? {} : { hint }) };
}

export function resultText(id: RpcId, result: unknown): string {
  return JSON.stringify({ jsonrpc: "2.0", result: result === undefined ? null : result, id });
}

export function errorText(id: RpcId, error: AppError): string {
  return JSON.stringify({ jsonrpc: "2.0", error: error.toRpc(), id });
}
