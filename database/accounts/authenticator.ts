import { LRUCache } from "lru-cache";
import type { Authenticator, Caller } from "#platform/authenticate.ts";
import { type AccessTokens, hashToken, isApiKey } from "#platform/tokens/index.ts";
import { AppError } from "#schemas";
import type { Database } from "../open.ts";
import type { UserRow } from "../schema.ts";
import { findUser, findUserByApiKeyHash } from "./users.ts";

const CACHED_BEARERS = 10_000;
const CACHED_USERS = 10_000;
const REVOCATION_MS = 5000;
const LONGEST_BEARER = 4096;

/** What a bearer proved; its user's state is looked up apart, so that revoking takes effect. */
type Proof =
  | { via: "jwt"; user_id: string; version: number; expires_at_ms: number }
  | { via: "api_key"; user_id: string; hash: Buffer };

export interface AccountAuthenticator {
  readonly authenticate: Authenticator;
  /** Make a change of this user (key, role, token version, deletion) take effect at once in this process. */
  invalidate(user_id: string): void;
}

export interface AuthenticatorOptions {
  readonly database: Pick<Database, "db">;
  readonly accessTokens: Pick<AccessTokens, "verify">;
  /** How long a user's state may be out of date, ms: revocation elsewhere shows after this. */
  readonly revocationMs?: number;
}

/** Bearer JWT or API key to caller. Verified ones are remembered by their SHA-256 until they end. */
export function createAuthenticator(options: AuthenticatorOptions): AccountAuthenticator {
  const proofs = new LRUCache<string, Proof>({ max: CACHED_BEARERS });
  // Promises, so that many requests at once ask once, and an invalidated answer in flight is not kept.
  const users = new LRUCache<string, Promise<UserRow | undefined>>({
    max: CACHED_USERS,
    ttl: options.revocationMs ?? REVOCATION_MS,
  });

  const currentUser = (user_id: string): Promise<UserRow | undefined> => {
    const known = users.get(user_id);
    if (known !== undefined) return known;
    const asked = findUser(options.database.db, user_id);
    users.set(user_id, asked);
    asked.catch(() => {
      if (users.peek(user_id) === asked) users.delete(user_id);
    });
    return asked;
  };

  const prove = async (bearer: string, hash: Buffer): Promise<Proof> => {
    if (isApiKey(bearer)) {
      const user = await findUserByApiKeyHash(options.database.db, hash);
      if (user === undefined) throw refused("The API key is not valid.");
      // A state remembered from before this key was made must not refuse it.
      users.delete(user.id);
      return { via: "api_key", user_id: user.id, hash };
    }
    const claims = await options.accessTokens.verify(bearer);
    return { via: "jwt", user_id: claims.sub, version: claims.ver, expires_at_ms: claims.exp * 1000 };
  };

  const authenticate = async (bearer: string | undefined): Promise<Caller> => {
    if (bearer === undefined || bearer === "") throw refused("Authentication is required.");
    if (bearer.length > LONGEST_BEARER) throw refused("The token is not valid.");
    const hash = hashToken(bearer);
    const key = hash.toString("base64");
    const proof = proofs.get(key) ?? (await prove(bearer, hash));
    try {
      assertUnexpired(proof);
      const user = await currentUser(proof.user_id);
      if (user === undefined) throw refused("The account does not exist any more.");
      assertUnrevoked(proof, user);
      proofs.set(key, proof);
      return { user_id: user.id, username: user.username, role: user.role, via: proof.via };
    } catch (error) {
      if (error instanceof AppError && error.code === "Unauthenticated") proofs.delete(key);
      throw error;
    }
  };

  return { authenticate, invalidate: (user_id) => void users.delete(user_id) };
}

function assertUnexpired(proof: Proof): void {
  if (proof.via === "jwt" && proof.expires_at_ms <= Date.now()) {
    throw refused("The token has expired.", "Get a new one from POST /auth/refresh, or sign in again.");
  }
}

function assertUnrevoked(proof: Proof, user: UserRow): void {
  if (proof.via === "api_key") {
    if (user.api_key_hash === null || !user.api_key_hash.equals(proof.hash)) {
      throw refused("The API key was revoked.");
    }
  } else if (user.token_version !== proof.version) {
    throw refused("The token was revoked.", "Get a new one from POST /auth/refresh, or sign in again.");
  }
}

function refused(
  message: string,
  hint = "Send Authorization: Bearer with an access token or API key.",
): AppError {
  return new AppError("Unauthenticated", message, { hint });
}
