import type { Config } from "#platform/config/config.ts";
import { addressKey } from "#platform/http/address-key.ts";
import { hashPassword, verifyPassword } from "#platform/password.ts";
import { TokenBuckets } from "#platform/token-bucket.ts";
import { type AccessTokens, hashToken, newRefreshToken } from "#platform/tokens/index.ts";
import { AppError, type Session, usernameSchema } from "#schemas";
import { isForeignKeyViolation } from "../errors.ts";
import type { Database } from "../open.ts";
import type { UserRow } from "../schema.ts";
import { replacePasswordHash, setPassword } from "./passwords.ts";
import { insertRefreshToken, revokeFamily, rotateRefreshToken } from "./refresh-tokens.ts";
import { findUser, findUserByName } from "./users.ts";

export interface SessionsOptions {
  readonly database: Pick<Database, "db">;
  readonly accessTokens: AccessTokens;
  readonly config: {
    auth: Pick<Config["auth"], "refreshTokenSeconds">;
    limits: Pick<Config["limits"], "loginsPerMinute">;
  };
}

/** Registering is as slow as signing in, and succeeds: an address may do so this many times as often as fail. */
const REGISTRATIONS_PER_LOGIN = 10;

/**
 * Signing in and staying signed in, for every route that does so. One per process: it counts the attempts
 * that failed, per address and per name.
 */
export interface Sessions {
  /**
   * The user with this name and password, else Unauthenticated in the same words and the same time whether
   * the name exists or not. `address`: the client's, for the limit. Throws RateLimited.
   */
  checkPassword(credentials: { username: string; password: string }, address: string): Promise<UserRow>;
  /** Count a registration from this address, whatever route it comes by. Throws RateLimited. */
  admitRegistration(address: string): void;
  /** A new session: an access token, and the first refresh token of a new family. */
  issue(user: UserRow): Promise<Session>;
  /** The next session for a refresh token, which is spent by it. Throws Unauthenticated. */
  refresh(refresh_token: string): Promise<Session>;
  /** End the session a refresh token belongs to; whether there was one. */
  end(refresh_token: string): Promise<boolean>;
  /** Ends every session of the user and answers a new one. Throws as `checkPassword`. */
  changePassword(
    user_id: string,
    passwords: { old_password: string; new_password: string },
    address: string,
  ): Promise<Session>;
}

export function createSessions(options: SessionsOptions): Sessions {
  const { db } = options.database;
  const { auth, limits } = options.config;
  const failures = new FailedAttempts(limits.loginsPerMinute);
  const registrations = new TokenBuckets(perMinute(limits.loginsPerMinute * REGISTRATIONS_PER_LOGIN));
  const expiry = () => new Date(Date.now() + auth.refreshTokenSeconds * 1000);

  const checkPassword: Sessions["checkPassword"] = async ({ username, password }, address) => {
    // What cannot be a name is not asked of the database (which would refuse some bytes), but costs the same.
    const known = usernameSchema.safeParse(username);
    return failures.counting(address, username, async () => {
      const user = known.success ? await findUserByName(db, known.data) : undefined;
      const { ok, rehash } = await verifyPassword(password, user?.password_hash);
      if (user === undefined || !ok) throw wrongPassword();
      if (rehash) {
        const new_hash = await hashPassword(password);
        await replacePasswordHash(db, { user_id: user.id, old_hash: user.password_hash, new_hash });
      }
      return user;
    });
  };

  const issue = async (user: UserRow): Promise<Session> => {
    const refresh_token = newRefreshToken();
    try {
      await insertRefreshToken(db, {
        hash: hashToken(refresh_token),
        user_id: user.id,
        expires_at: expiry(),
      });
    } catch (error) {
      // The account was deleted since it was read.
      throw isForeignKeyViolation(error) ? endedSession() : error;
    }
    return sessionOf(options.accessTokens, user, refresh_token);
  };

  return {
    checkPassword,
    admitRegistration: (address) => registrations.takeOrThrow(addressKey(address)),
    issue,
    async refresh(refresh_token) {
      const next = newRefreshToken();
      const rotation = await rotateRefreshToken(db, {
        hash: hashToken(refresh_token),
        newHash: hashToken(next),
        expires_at: expiry(),
      });
      if (rotation === "reused") throw reusedToken();
      if (rotation === "invalid") throw endedSession();
      return sessionOf(options.accessTokens, rotation.user, next);
    },
    end: (refresh_token) => revokeFamily(db, hashToken(refresh_token)),
    async changePassword(user_id, { old_password, new_password }, address) {
      const user = await findUser(db, user_id);
      if (user === undefined) throw endedSession();
      await checkPassword({ username: user.username, password: old_password }, address);
      return issue(await setPassword(db, user_id, await hashPassword(new_password)));
    },
  };
}

/**
 * Attempts are taken from two allowances before the slow check, so that parallel ones count, and given back
 * when they succeed: only what fails is limited.
 */
class FailedAttempts {
  readonly #perAddress: TokenBuckets;
  readonly #perName: TokenBuckets;

  constructor(failuresPerMinute: number) {
    this.#perAddress = new TokenBuckets(perMinute(failuresPerMinute));
    this.#perName = new TokenBuckets(perMinute(failuresPerMinute));
  }

  async counting<T>(address: string, username: string, attempt: () => Promise<T>): Promise<T> {
    const name = username.trim().normalize("NFKC").toLowerCase();
    const place = addressKey(address);
    this.#perAddress.takeOrThrow(place);
    this.#perName.takeOrThrow(name);
    const result = await attempt();
    this.#perAddress.refund(place);
    this.#perName.refund(name);
    return result;
  }
}

function perMinute(count: number): { perSecond: number; burst: number } {
  return { perSecond: count / 60, burst: Math.max(1, Math.floor(count)) };
}

async function sessionOf(tokens: AccessTokens, user: UserRow, refresh_token: string): Promise<Session> {
  const { token: access_token, expires_in } = await tokens.issue(user);
  const { id, username, role } = user;
  return { access_token, refresh_token, expires_in, user: { id, username, role } };
}

function wrongPassword(): AppError {
  return new AppError("Unauthenticated", "The username or the password is wrong.");
}

function endedSession(): AppError {
  return new AppError("Unauthenticated", "The session has ended.", { hint: "Sign in again." });
}

function reusedToken(): AppError {
  return new AppError("Unauthenticated", "This refresh token was used before, so its session was ended.", {
    hint: "Sign in again. If nobody else can have had the token, let one place only refresh it.",
  });
}
