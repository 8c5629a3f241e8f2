import type { Role } from "#schemas";

/** Whoever a request comes from, proven. */
export interface Caller {
  user_id: string;
  username: string;
  role: Role;
  via: "jwt" | "api_key" | "task";
  /** Only `via` a task token: which attempt of which task is calling. */
  task?: { task_id: string; attempt: number };
}

/**
 * Turn the bearer of a request into a caller.
 * @throws AppError Unauthenticated when there is none, or it is forged, expired or revoked.
 */
export type Authenticator = (bearer: string | undefined) => Promise<Caller>;
