import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { lockForProcess } from "#platform/host/process-lock.ts";
import { AppError } from "#schemas";
import { storageFailure } from "./failures.ts";

/** Never filled: this share of the disk, or this many bytes where that is less. The database may live there, too. */
const RESERVE_SHARE = 0.05;
const RESERVE_BYTES = 1024 ** 3;

export interface FreeSpace {
  availableBytes: number;
  totalBytes: number;
}

/** The right to download to one target, and what it will still need of the disk. */
export interface Claim extends AsyncDisposable {
  /** Bytes not written yet. */
  remaining: number;
}

/** Claims of this process by target. */
const claims = new Map<string, { remaining: number }>();

/**
 * Claim a target: one download at a time writes to it, in this process and in others.
 * @throws AppError Conflict.
 */
export async function claimTarget(target: string): Promise<Claim> {
  if (claims.has(target)) throw inUse();
  const held = { remaining: 0 };
  claims.set(target, held);
  try {
    const lock = await lockForProcess(`${target}.part.lock`, "The download").catch((error: unknown) => {
      if (error instanceof AppError && error.code === "Conflict") throw inUse();
      throw storageFailure(error);
    });
    return Object.assign(held, {
      async [Symbol.asyncDispose]() {
        await lock.release().finally(() => claims.delete(target));
      },
    });
  } catch (error) {
    claims.delete(target);
    throw error;
  }
}

/** What the disk of a directory has. */
export async function freeSpace(directory: string): Promise<FreeSpace> {
  const { bsize, blocks, bavail } = await statfs(directory).catch((error: unknown) => {
    throw storageFailure(error);
  });
  return { availableBytes: bavail * bsize, totalBytes: blocks * bsize };
}

/**
 * Whether what `target` still needs fits on its disk, with what other downloads there have been promised.
 * @throws AppError QuotaExceeded with needed_bytes and available_bytes.
 */
export async function requireSpace(
  target: string,
  needed: number,
  look: (directory: string) => Promise<FreeSpace>,
): Promise<void> {
  const directory = dirname(target);
  const { availableBytes, totalBytes } = await look(directory);
  const reserve = Math.min(RESERVE_BYTES, totalBytes * RESERVE_SHARE);
  let promised = 0;
  for (const [other, { remaining }] of claims) {
    if (other !== target && dirname(other) === directory) promised += remaining;
  }
  const available = Math.max(0, Math.floor(availableBytes - reserve - promised));
  if (needed <= available) return;
  throw new AppError("QuotaExceeded", "The disk has not enough free space for this model.", {
    hint: `It needs ${needed} bytes; ${available} may be used, some are kept free for everything else.`,
    needed_bytes: needed,
    available_bytes: available,
  });
}

function inUse(): AppError {
  return new AppError("Conflict", "That file is being downloaded already.", {
    hint: "Wait for the other download, or cancel it.",
  });
}
