import { createHash, randomBytes } from "node:crypto";

const API_KEY_PREFIX = "cds_";
const REFRESH_PREFIX = "cdr_";
const SECRET_BYTES = 32;

/** A new API key: 256 random bits behind a prefix that secret scanners and people recognise. */
export function newApiKey(): string {
  return API_KEY_PREFIX + randomBytes(SECRET_BYTES).toString("base64url");
}

export function isApiKey(token: string): boolean {
  return token.startsWith(API_KEY_PREFIX);
}

export function newRefreshToken(): string {
  return REFRESH_PREFIX + randomBytes(SECRET_BYTES).toString("base64url");
}

/** What is stored of an API key or refresh token: SHA-256 suffices, for they hold 256 random bits. */
export function hashToken(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** What a bearer claims to be, read from its shape alone; only verifying it says whether it is. */
export function tokenKind(token: string): "api_key" | "access" | "task" | "unknown" {
  if (isApiKey(token)) return "api_key";
  const [head, , , ...rest] = token.split(".", 4);
  if (head === undefined || rest.length > 0) return "unknown";
  try {
    const header: unknown = JSON.parse(Buffer.from(head, "base64url").toString("utf8"));
    const typ = typeof header === "object" && header !== null && "typ" in header ? header.typ : undefined;
    return typ === "at+jwt" ? "access" : typ === "task+jwt" ? "task" : "unknown";
  } catch {
    return "unknown";
  }
}
