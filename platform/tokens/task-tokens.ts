import type { Secrets } from "../secrets.ts";
import { importHmacKey, invalidToken, type JwtKind, signJwt, verifyJwt } from "./jwt.ts";

/** What a task token says; `exp` in seconds since 1970. */
export interface TaskClaims {
  task_id: string;
  user_id: string;
  attempt: number;
  exp: number;
}

/** Lets one attempt of one task call models, and nothing else: another key and `typ` than access tokens. */
export class TaskTokens {
  readonly #kind: JwtKind;

  private constructor(kind: JwtKind) {
    this.#kind = kind;
  }

  static async open(secrets: Secrets): Promise<TaskTokens> {
    const key = await importHmacKey(secrets.key("task-tokens"));
    return new TaskTokens({ key, typ: "task+jwt", audience: "cyberdevstudio/llm" });
  }

  issue(claims: { task_id: string; user_id: string; attempt: number; ttlSeconds: number }): Promise<string> {
    const { task_id, user_id, attempt, ttlSeconds } = claims;
    const expiresAt = Math.floor(Date.now() / 1000) + ttlSeconds;
    return signJwt(this.#kind, { task_id, user_id, attempt }, expiresAt);
  }

  /** @throws AppError Unauthenticated. */
  async verify(token: string): Promise<TaskClaims> {
    const { task_id, user_id, attempt, exp } = await verifyJwt(this.#kind, token);
    if (
      typeof task_id !== "string" ||
      typeof user_id !== "string" ||
      typeof attempt !== "number" ||
      typeof exp !== "number"
    ) {
      throw invalidToken();
    }
    return { task_id, user_id, attempt, exp };
  }
}
