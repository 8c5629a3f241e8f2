import type { FastifyInstance } from "fastify";

/** Enough for any form about an account. */
export const SMALL_BODY_BYTES = 64 * 1024;

/**
 * Routes added to this scope from now on take bodies of at most `bytes` unless they say otherwise: what anybody may
 * send is read and parsed before it is known who sends it.
 */
export function limitBodies(scope: FastifyInstance, bytes: number = SMALL_BODY_BYTES): void {
  scope.addHook("onRoute", (route) => {
    route.bodyLimit ??= bytes;
  });
}
