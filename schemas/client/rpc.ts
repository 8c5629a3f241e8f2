import { AppError } from "../errors.ts";
import type { MethodInput, MethodName, MethodResult } from "../rpc/index.ts";
import { type CallOptions, type HttpOptions, postJson } from "./http.ts";
import { errorFromHttp, errorFromWire, isResponse } from "./wire.ts";

/** One call of a batch. */
export type BatchCall = {
  [M in MethodName]: { readonly method: M; readonly params: MethodInput<M> };
}[MethodName];

/** What became of one call of a batch. */
type Settled<M extends MethodName> =
  | { readonly ok: true; readonly result: MethodResult<M> }
  | { readonly ok: false; readonly error: AppError };

export type BatchResult<C extends readonly BatchCall[]> = {
  -readonly [I in keyof C]: Settled<C[I]["method"]>;
};

/** @throws AppError as the server sent it, or Unavailable, Timeout, Cancelled. */
export async function callOver<M extends MethodName>(
  http: HttpOptions,
  method: M,
  params: MethodInput<M>,
  options?: CallOptions,
): Promise<MethodResult<M>> {
  const { status, body, retryAfter } = await postJson(
    http,
    "/rpc",
    { jsonrpc: "2.0", method, params, id: 1 },
    options,
  );
  if (!isResponse(body)) throw errorFromHttp(status, body, retryAfter);
  if (body.error !== undefined) throw errorFromWire(body.error);
  return body.result as MethodResult<M>;
}

/** Several calls in one request; a call that fails does not fail the others. @throws AppError when all did. */
export async function batchOver<const C extends readonly BatchCall[]>(
  http: HttpOptions,
  calls: C,
  options?: CallOptions,
): Promise<BatchResult<C>> {
  if (calls.length === 0) return [] as unknown as BatchResult<C>;
  const requests = calls.map(({ method, params }, id) => ({ jsonrpc: "2.0", method, params, id }));
  const { status, body, retryAfter } = await postJson(http, "/rpc", requests, options);
  if (!Array.isArray(body)) {
    throw isResponse(body) ? errorFromWire(body.error) : errorFromHttp(status, body, retryAfter);
  }
  const byId = new Map(body.filter(isResponse).map((response) => [response.id, response]));
  return calls.map((_, id) => {
    const response = byId.get(id);
    if (response === undefined)
      return { ok: false, error: new AppError("InternalError", "The server left this call out.") };
    if (response.error !== undefined) return { ok: false, error: errorFromWire(response.error) };
    return { ok: true, result: response.result };
  }) as BatchResult<C>;
}
