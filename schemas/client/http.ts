import { AppError } from "../errors.ts";
import { errorFromFetch, errorFromHttp } from "./wire.ts";

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** ms; the client's own time-out when left out. */
  readonly timeoutMs?: number;
}

/** Gives the access token to send; `refused` is one the server has just turned down. */
export type TokenSource = (refused?: string) => string | undefined | Promise<string | undefined>;

export interface HttpOptions {
  readonly baseUrl: string;
  readonly fetch: typeof fetch;
  readonly token: TokenSource;
  readonly timeoutMs: number;
}

/**
 * POST a JSON body and read the JSON answer, whatever its status. A token that is refused is renewed once.
 * @throws AppError Unavailable, Timeout, Cancelled.
 */
export async function postJson(
  http: HttpOptions,
  path: string,
  body: unknown,
  options: CallOptions = {},
): Promise<{ status: number; body: unknown; retryAfter: string | null }> {
  const token = await http.token();
  const answer = await postOnce(http, path, body, token, options);
  if (answer.status !== 401 || token === undefined) return answer;
  const renewed = await http.token(token);
  if (renewed === undefined || renewed === token) return answer;
  return await postOnce(http, path, body, renewed, options);
}

async function postOnce(
  { baseUrl, fetch, timeoutMs }: HttpOptions,
  path: string,
  body: unknown,
  token: string | undefined,
  options: CallOptions,
) {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  const timeout = AbortSignal.timeout(options.timeoutMs ?? timeoutMs);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
  try {
    const response = await fetch(`${baseUrl}${path}`, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
      signal,
    });
    const text = await response.text();
    return { status: response.status, body: parse(text), retryAfter: response.headers.get("retry-after") };
  } catch (error) {
    throw errorFromFetch(error, options.signal);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** As `postJson`, for routes that answer with the thing itself. @throws AppError also for every error status. */
export async function postForResult<T>(
  http: HttpOptions,
  path: string,
  body: unknown,
  options?: CallOptions,
): Promise<T> {
  const answer = await postJson(http, path, body, options);
  if (answer.status >= 400) throw errorFromHttp(answer.status, answer.body, answer.retryAfter);
  if (answer.body === undefined && answer.status !== 204) {
    throw new AppError("InternalError", "The server sent an answer that is not JSON.");
  }
  return answer.body as T;
}
