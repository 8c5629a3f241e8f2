import type { Authenticator, Caller } from "#platform/authenticate.ts";
import { addressKey } from "#platform/http/address-key.ts";
import type { TokenBuckets } from "#platform/token-bucket.ts";
import { AppError, toAppError } from "#schemas";
import { PerUser } from "./per-user.ts";

/** Bytes somebody may send before being signed in: enough for any public method. */
export const ANONYMOUS_BYTES = 64 * 1024;

/** What the bearer of a request or connection came to. */
export interface Identity {
  readonly caller?: Caller;
  /** Why there is no caller: none was given, or it was refused. */
  readonly error?: AppError;
}

export interface GateOptions {
  readonly authenticate: Authenticator;
  readonly perUser: TokenBuckets;
  /** By client address; taken from here for the calls of those who are not signed in. */
  readonly perIp: TokenBuckets;
}

/** Who may come in, and how often. */
export class Gate {
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /**
   * The caller a bearer proves.
   * @throws AppError Unauthenticated, also for a token that opens the model server only.
   */
  async authenticate(bearer: string | undefined): Promise<Caller> {
    const caller = await this.#options.authenticate(bearer);
    if (caller.via === "task") {
      throw new AppError("Unauthenticated", "A task's token opens the model server only.", {
        hint: "Use an access token or an API key.",
      });
    }
    return caller;
  }

  /** As `authenticate`, for those who may also stay nameless. */
  async identify(bearer: string | undefined): Promise<Identity> {
    try {
      return { caller: await this.authenticate(bearer) };
    } catch (error) {
      return { error: toAppError(error) };
    }
  }

  /** Take one call's worth. @throws AppError RateLimited */
  admit(caller: Caller | undefined, address: string): void {
    if (caller === undefined) this.#options.perIp.takeOrThrow(addressKey(address));
    else this.#options.perUser.takeOrThrow(caller.user_id);
  }
}

/** When a JWT expires (ms since 1970), read without verifying it; undefined for anything else. */
export function expiryOf(bearer: string): number | undefined {
  const payload = bearer.split(".", 3)[1];
  if (payload === undefined) return undefined;
  try {
    const { exp } = JSON.parse(Buffer.from(payload, "base64url").toString("utf8")) as { exp?: unknown };
    return typeof exp === "number" ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}

/** Counts what a user holds open (sockets, streams) against one limit. */
export class OpenPerUser {
  readonly #limit: number;
  readonly #open = new PerUser();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @returns gives the place back, once. @throws AppError RateLimited when all are taken. */
  acquire(userId: string): () => void {
    const open = this.#open.of(userId);
    if (open >= this.#limit) {
      throw new AppError("RateLimited", `You have ${open} connections open already.`, {
        hint: "Close one of them first.",
      });
    }
    return this.#open.take(userId);
  }
}
