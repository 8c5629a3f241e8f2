import { webcrypto } from "node:crypto";
import { errors, jwtVerify, SignJWT } from "jose";
import { AppError } from "#schemas";

const ALGORITHM = "HS256";
const ISSUER = "cyberdevstudio";
/** Clocks of several instances may differ by this much (seconds). */
const TOLERANCE_SECONDS = 2;

/** One kind of JWT: its own key and `typ`, so that a token of one kind is never taken for another. */
export interface JwtKind {
  key: webcrypto.CryptoKey;
  typ: string;
  audience: string;
}

/** jose verifies with a CryptoKey in half the time it needs with raw bytes. */
export function importHmacKey(key: Buffer): Promise<webcrypto.CryptoKey> {
  return webcrypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
}

export function signJwt(kind: JwtKind, claims: Record<string, unknown>, expiresAt: number): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: ALGORITHM, typ: kind.typ })
    .setIssuer(ISSUER)
    .setAudience(kind.audience)
    .setIssuedAt()
    .setExpirationTime(expiresAt)
    .sign(kind.key);
}

/** @throws AppError Unauthenticated when forged, expired, of another kind or not a token at all. */
export async function verifyJwt(kind: JwtKind, token: string): Promise<Record<string, unknown>> {
  try {
    const { payload } = await jwtVerify(token, kind.key, {
      algorithms: [ALGORITHM],
      typ: kind.typ,
      issuer: ISSUER,
      audience: kind.audience,
      requiredClaims: ["exp", "iat"],
      clockTolerance: TOLERANCE_SECONDS,
    });
    return payload;
  } catch (error) {
    if (error instanceof errors.JWTExpired) {
      throw new AppError("Unauthenticated", "The token has expired.", {
        hint: "Get a new one from POST /auth/refresh, or sign in again.",
      });
    }
    throw invalidToken(error);
  }
}

export function invalidToken(cause?: unknown): AppError {
  return new AppError("Unauthenticated", "The token is not valid.", { hint: "Sign in again." }, cause);
}
