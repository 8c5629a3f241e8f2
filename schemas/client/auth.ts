import type { Session } from "../auth.ts";
import { AppError } from "../errors.ts";
import { type HttpOptions, postForResult, type TokenSource } from "./http.ts";

/** Renew this long (ms) before the access token expires, so that no call meets an expired one. */
const RENEW_EARLY = 30_000;

export interface AuthOptions {
  readonly baseUrl: string;
  readonly fetch?: typeof fetch;
  /** ms per request; 30,000 when left out. */
  readonly timeoutMs?: number;
  /** A session kept from before. */
  readonly session?: Session;
  /** Told of every new session, and of its end with undefined: the place to keep or forget the refresh token. */
  readonly onSession?: (session: Session | undefined) => void;
}

/** Signs in and keeps the session alive; its `token` is what `createClient({getToken})` wants. */
export interface Auth {
  register(username: string, password: string): Promise<Session>;
  login(username: string, password: string): Promise<Session>;
  /** A new pair of tokens; callers at the same time share one request, for a refresh token works only once. */
  refresh(): Promise<Session>;
  readonly token: TokenSource;
}

export function createAuth(options: AuthOptions): Auth {
  const http: HttpOptions = {
    baseUrl: options.baseUrl.replace(/\/+$/, ""),
    fetch: options.fetch ?? ((input, init) => fetch(input, init)),
    timeoutMs: options.timeoutMs ?? 30_000,
    token: () => undefined,
  };
  let session = options.session;
  // A session from before may be of any age: it is renewed at its first use.
  let expiresAt = 0;
  let renewing: Promise<Session> | undefined;

  const keep = (fresh: Session): Session => {
    session = fresh;
    expiresAt = Date.now() + fresh.expires_in * 1000;
    options.onSession?.(fresh);
    return fresh;
  };
  const renew = async (): Promise<Session> => {
    if (session === undefined) throw new AppError("Unauthenticated", "Nobody is signed in.");
    const { refresh_token } = session;
    try {
      return keep(await postForResult<Session>(http, "/auth/refresh", { refresh_token }));
    } catch (error) {
      // Only a refusal ends the session; a server that is away does not.
      if (error instanceof AppError && error.code === "Unauthenticated") {
        session = undefined;
        options.onSession?.(undefined);
      }
      throw error;
    }
  };
  const refresh = (): Promise<Session> => {
    renewing ??= renew().finally(() => {
      renewing = undefined;
    });
    return renewing;
  };
  return {
    register: async (username, password) =>
      keep(await postForResult(http, "/auth/register", { username, password })),
    login: async (username, password) =>
      keep(await postForResult(http, "/auth/login", { username, password })),
    refresh,
    token: async (refused) => {
      if (session === undefined) return undefined;
      const stale = refused === session.access_token || expiresAt - RENEW_EARLY < Date.now();
      return stale ? (await refresh()).access_token : session.access_token;
    },
  };
}
