import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { availableParallelism } from "node:os";
import { AppError } from "#schemas";

/** OWASP 2024: 19 MiB, two passes, one lane. Measured here about 30 ms. */
const MEMORY_KIB = 19_456;
const PASSES = 2;
const LANES = 1;
const SALT_BYTES = 16;
const HASH_BYTES = 32;
const PHC =
  /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,171})$/;

interface Parameters {
  memory: number;
  passes: number;
  lanes: number;
  salt: Buffer;
  hash: Buffer;
}

/** At most one derivation per core: a hundred logins at once take turns instead of two gigabytes. */
const waiting: (() => void)[] = [];
/** Some ten seconds of work on two cores: whoever comes later is better told so. */
const MAX_WAITING = 500;
let free = availableParallelism();

/** A salted argon2id hash in PHC form, to be stored. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await derive(password, { memory: MEMORY_KIB, passes: PASSES, lanes: LANES, salt }, HASH_BYTES);
  return `$argon2id$v=19$m=${MEMORY_KIB},t=${PASSES},p=${LANES}$${base64(salt)}$${base64(hash)}`;
}

/**
 * Whether `password` is the one hashed. Without a hash (no such user) the same work is done and the answer
 * is no, so that time does not tell which names exist. `rehash`: right, but hashed with older parameters.
 */
export async function verifyPassword(
  password: string,
  stored: string | undefined,
): Promise<{ ok: boolean; rehash: boolean }> {
  const known = stored === undefined ? undefined : parse(stored);
  const parameters = known ?? dummy();
  const derived = await derive(password, parameters, parameters.hash.length);
  const ok = timingSafeEqual(derived, parameters.hash) && known !== undefined;
  const { memory, passes, lanes } = parameters;
  return { ok, rehash: ok && !(memory === MEMORY_KIB && passes === PASSES && lanes === LANES) };
}

function parse(stored: string): Parameters | undefined {
  const [, memory, passes, lanes, salt, hash] = PHC.exec(stored) ?? [];
  if (salt === undefined || hash === undefined) return undefined;
  return {
    memory: Number(memory),
    passes: Number(passes),
    lanes: Number(lanes),
    salt: Buffer.from(salt, "base64"),
    hash: Buffer.from(hash, "base64"),
  };
}

function dummy(): Parameters {
  const [salt, hash] = [Buffer.alloc(SALT_BYTES), randomBytes(HASH_BYTES)];
  return { memory: MEMORY_KIB, passes: PASSES, lanes: LANES, salt, hash };
}

/** @throws AppError Unavailable when too many wait already. */
async function derive(
  password: string,
  parameters: Omit<Parameters, "hash">,
  length: number,
): Promise<Buffer> {
  if (free > 0) free -= 1;
  else if (waiting.length >= MAX_WAITING) {
    throw new AppError("Unavailable", "Too many people are signing in at once.", { retry_after_seconds: 10 });
  } else await new Promise<void>((resolve) => waiting.push(resolve));
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      argon2(
        "argon2id",
        {
          // One spelling of a password, however the keyboard composes its letters.
          message: Buffer.from(password.normalize("NFKC"), "utf8"),
          nonce: parameters.salt,
          memory: parameters.memory,
          passes: parameters.passes,
          parallelism: parameters.lanes,
          tagLength: length,
        },
        (error, derived) => (error ? reject(error) : resolve(derived)),
      );
    });
  } finally {
    const next = waiting.shift();
    if (next === undefined) free += 1;
    else next();
  }
}

/** PHC strings leave the padding off. */
function base64(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/, "");
}
