import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { chmod, link, mkdir, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "#schemas";
import { ConfigError } from "./config/read-env.ts";

/** Raised when the layout of sealed bytes changes, so that old ones stay readable. */
const VERSION = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEADER_BYTES = 1 + NONCE_BYTES + TAG_BYTES;
const KEY_BYTES = 32;
const SALT = "cyberdevstudio/v1";

export interface Secrets {
  /** A 32-byte key of its own for each purpose: knowing one tells nothing of another. */
  key(purpose: string): Buffer;
  /** Encrypt and bind to `context` (as `provider:usr_01`): opened under another context it is refused. */
  seal(plain: string, context: string): Buffer;
  /** @throws AppError InternalError when altered, of another context or of another master key. */
  open(sealed: Uint8Array, context: string): string;
}

/**
 * The master key: given, or kept in `<dataDir>/master.key` (0600), made at the first start. Starters that
 * race agree on one. A file that is there but unusable is an error: a new key would lose what is stored.
 */
export async function openSecrets(options: {
  masterKey?: string | undefined;
  dataDir: string;
}): Promise<Secrets> {
  if (options.masterKey !== undefined) {
    if (options.masterKey.length < 32) throw new ConfigError("CDS_MASTER_KEY", "needs 32 characters or more");
    return secretsFrom(Buffer.from(options.masterKey, "utf8"));
  }
  await mkdir(options.dataDir, { recursive: true });
  const path = join(options.dataDir, "master.key");
  return secretsFrom((await readKey(path)) ?? (await createKey(path)));
}

async function readKey(path: string): Promise<Buffer | undefined> {
  let content: string;
  try {
    content = await readFile(path, "utf8");
  } catch (error) {
    if (isCode(error, "ENOENT")) return undefined;
    throw error;
  }
  const key = Buffer.from(content.trim(), "base64url");
  if (key.length !== KEY_BYTES) {
    throw new ConfigError(path, "is not a master key of this server; restore it from a backup");
  }
  // A copy or a restore may have widened the mode; a file of somebody else's (a mounted secret) stays as it is.
  await chmod(path, 0o600).catch((error: unknown) => {
    if (!isCode(error, "EPERM") && !isCode(error, "EROFS")) throw error;
  });
  return key;
}

/** Written whole under another name and then linked: the name appears once, complete, and only for one. */
async function createKey(path: string): Promise<Buffer> {
  const key = randomBytes(KEY_BYTES);
  const draft = `${path}.${randomBytes(8).toString("hex")}`;
  try {
    await using file = await open(draft, "wx", 0o600);
    await file.writeFile(`${key.toString("base64url")}\n`);
    await file.sync();
    await link(draft, path);
    return key;
  } catch (error) {
    if (!isCode(error, "EEXIST")) throw error;
    const winner = await readKey(path);
    if (winner === undefined) throw error;
    return winner;
  } finally {
    await rm(draft, { force: true });
  }
}

function secretsFrom(master: Buffer): Secrets {
  const key = (purpose: string) => Buffer.from(hkdfSync("sha256", master, SALT, purpose, KEY_BYTES));
  const sealing = key("seal");
  return {
    key,
    seal(plain, context) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv("aes-256-gcm", sealing, nonce, { authTagLength: TAG_BYTES });
      cipher.setAAD(additionalData(context));
      const text = Buffer.concat([cipher.update(plain, "utf8"), cipher.final()]);
      return Buffer.concat([Buffer.of(VERSION), nonce, cipher.getAuthTag(), text]);
    },
    open(sealed, context) {
      try {
        return unseal(sealing, sealed, context);
      } catch (error) {
        throw new AppError(
          "InternalError",
          "A stored secret cannot be opened.",
          { hint: "The server's master key has changed; store the secret again." },
          error,
        );
      }
    },
  };
}

function unseal(key: Buffer, sealed: Uint8Array, context: string): string {
  if (sealed.length < HEADER_BYTES || sealed[0] !== VERSION) throw new Error("not sealed by this version");
  const nonce = sealed.subarray(1, 1 + NONCE_BYTES);
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(additionalData(context));
  decipher.setAuthTag(sealed.subarray(1 + NONCE_BYTES, HEADER_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(HEADER_BYTES)), decipher.final()]).toString("utf8");
}

function additionalData(context: string): Buffer {
  return Buffer.from(`${VERSION}:${context}`, "utf8");
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
