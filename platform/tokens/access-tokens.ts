import { type Role, roleSchema } from "#schemas";
import type { Secrets } from "../secrets.ts";
import { importHmacKey, invalidToken, type JwtKind, signJwt, verifyJwt } from "./jwt.ts";

/** What an access token says; `exp` in seconds since 1970, `ver` is the user's token_version at issue. */
export interface AccessClaims {
  sub: string;
  username: string;
  role: Role;
  ver: number;
  exp: number;
}

/** The user as a token needs it. */
export interface TokenSubject {
  id: string;
  username: string;
  role: Role;
  token_version: number;
}

/** Short-lived proof of who a caller is: HS256, its own key, `typ` "at+jwt". */
export class AccessTokens {
  readonly #kind: JwtKind;
  readonly #ttlSeconds: number;

  private constructor(kind: JwtKind, ttlSeconds: number) {
    this.#kind = kind;
    this.#ttlSeconds = ttlSeconds;
  }

  static async open(secrets: Secrets, ttlSeconds: number): Promise<AccessTokens> {
    const key = await importHmacKey(secrets.key("access-tokens"));
    return new AccessTokens({ key, typ: "at+jwt", audience: "cyberdevstudio" }, ttlSeconds);
  }

  /** `expires_in` in seconds. */
  async issue(user: TokenSubject): Promise<{ token: string; expires_in: number }> {
    const expiresAt = Math.floor(Date.now() / 1000) + this.#ttlSeconds;
    const { id, username, role, token_version } = user;
    const token = await signJwt(this.#kind, { sub: id, username, role, ver: token_version }, expiresAt);
    return { token, expires_in: this.#ttlSeconds };
  }

  /** @throws AppError Unauthenticated. Whether `ver` is still the user's is for the caller to check. */
  async verify(token: string): Promise<AccessClaims> {
    const { sub, username, role, ver, exp } = await verifyJwt(this.#kind, token);
    const known = roleSchema.safeParse(role);
    if (
      typeof sub !== "string" ||
      typeof username !== "string" ||
      typeof ver !== "number" ||
      typeof exp !== "number" ||
      !known.success
    ) {
      throw invalidToken();
    }
    return { sub, username, role: known.data, ver, exp };
  }
}
