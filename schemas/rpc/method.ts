import type { z } from "zod";
import type { ErrorCode } from "../errors.ts";

/** Who may call a method: anybody, any signed-in user, or a signed-in user with at least this role. */
export type Access = "public" | "viewer" | "developer" | "admin";

/** One JSON-RPC method: the single source of its types, its checks, its OpenRPC entry and its example. */
export interface MethodSpec<P extends z.ZodType = z.ZodType, R extends z.ZodType = z.ZodType> {
  readonly summary: string;
  readonly access: Access;
  /** By name only (JSON-RPC 4.2 "by-name"), snake_case. */
  readonly params: P;
  readonly result: R;
  /** Named errors beyond those every method can give (InvalidParams, Unauthenticated, RateLimited, ...). */
  readonly errors: readonly ErrorCode[];
  /** Only over WebSocket: it sends notifications on the caller's connection. */
  readonly streaming?: boolean;
  /** It bounds its own time: the usual time-out of a call does not apply, and others need not wait for it. */
  readonly lasting?: boolean;
  readonly example: { readonly params: z.input<P>; readonly result: z.input<R> };
}

export function defineMethod<P extends z.ZodType, R extends z.ZodType>(
  spec: MethodSpec<P, R>,
): MethodSpec<P, R> {
  return spec;
}
