import { AppError, type Session, type UserView } from "#schemas";
import { createClient } from "#schemas/client/index.ts";
import { errorFromFetch, errorFromHttp } from "#schemas/client/wire.ts";

/**
 * The signed-in session: the short-lived access token lives in memory only, the refresh token (rotated at
 * every use) in local storage, so that a reload stays signed in.
 */
const REFRESH_KEY = "cds.refresh";
/** Renew this long before expiry, so that no call meets an expired token. */
const RENEW_EARLY_MS = 30_000;
/** Longest wait for one answer. */
const REQUEST_MS = 30_000;

let access: { token: string; expiresAt: number } | undefined;
let renewing: Promise<UserView | undefined> | undefined;
const endListeners = new Set<() => void>();

// Who signs out in one tab is signed out in all of them.
addEventListener("storage", (event) => {
  if (event.storageArea === localStorage && localStorage.getItem(REFRESH_KEY) === null) forget();
});

export function onSessionEnd(listener: () => void): () => void {
  endListeners.add(listener);
  return () => endListeners.delete(listener);
}

function keep(session: Session): UserView {
  access = { token: session.access_token, expiresAt: Date.now() + session.expires_in * 1000 };
  localStorage.setItem(REFRESH_KEY, session.refresh_token);
  return session.user;
}

function forget(): void {
  access = undefined;
  localStorage.removeItem(REFRESH_KEY);
  for (const listener of endListeners) listener();
}

/** Ask a route of our own; throws AppError for an error status, and when the server cannot be reached. */
export async function request(path: string, init: RequestInit): Promise<Response> {
  const response = await fetch(path, init).catch((error: unknown) => {
    throw errorFromFetch(error, undefined);
  });
  if (response.ok) return response;
  const body: unknown = await response.json().catch(() => undefined);
  throw errorFromHttp(response.status, body, response.headers.get("retry-after"));
}

/** One JSON request, as `request`. */
export async function http<T>(method: string, path: string, body?: unknown, token?: string): Promise<T> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  const init: RequestInit = { method, headers, signal: AbortSignal.timeout(REQUEST_MS) };
  if (body !== undefined) init.body = JSON.stringify(body);
  const response = await request(path, init);
  return (await response.json()) as T;
}

export async function signIn(username: string, password: string): Promise<UserView> {
  return keep(await http<Session>("POST", "/auth/login", { username, password }));
}

export async function register(username: string, password: string): Promise<UserView> {
  return keep(await http<Session>("POST", "/auth/register", { username, password }));
}

export async function signOut(): Promise<void> {
  const refresh_token = localStorage.getItem(REFRESH_KEY);
  const token = access?.token;
  forget();
  if (refresh_token !== null)
    await http("POST", "/auth/logout", { refresh_token }, token).catch(() => undefined);
}

/** Take up the session of an earlier visit; undefined when there is none. Concurrent callers share one renewal. */
export function resume(): Promise<UserView | undefined> {
  // A refresh token works once, and a second use ends the session: the tabs of a browser take turns.
  const alone = () => (navigator.locks === undefined ? renew() : navigator.locks.request(REFRESH_KEY, renew));
  renewing ??= alone().finally(() => {
    renewing = undefined;
  });
  return renewing;
}

async function renew(): Promise<UserView | undefined> {
  const refresh_token = localStorage.getItem(REFRESH_KEY);
  if (refresh_token === null) return undefined;
  try {
    return keep(await http<Session>("POST", "/auth/refresh", { refresh_token }));
  } catch (error) {
    // Only a refusal ends the session; a server that is restarting does not.
    if (error instanceof AppError && error.code === "Unauthenticated") forget();
    else throw error;
    return undefined;
  }
}

export async function getToken(): Promise<string> {
  if (access === undefined || access.expiresAt - RENEW_EARLY_MS < Date.now()) await resume();
  if (access === undefined) throw new AppError("Unauthenticated", "The session has ended.");
  return access.token;
}

export const client = createClient({ baseUrl: location.origin, getToken });
