import { createHash, randomBytes } from "node:crypto";
import { link, readFile, rename, rm, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "#schemas";

const ATTEMPTS = 40;
const LONGEST_PAUSE_MS = 25;

export interface ProcessLock extends AsyncDisposable {
  release(): Promise<void>;
}

/**
 * When a process started, in clock ticks since boot: with its pid it names one process for good, as pids are
 * used again. Undefined when there is no such process; "" where the system does not tell.
 */
export async function processStart(pid: number): Promise<string | undefined> {
  if (process.platform === "linux") {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
    // The command's name stands in brackets and may hold anything; field 22 counts from behind it.
    const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields === undefined || fields[0] === "Z" ? undefined : fields[19];
  }
  try {
    process.kill(pid, 0);
    return "";
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM" ? "" : undefined;
  }
}

/**
 * Let one process at a time hold `path`; a lock whose holder is gone (kill -9, power cut) is taken over.
 * Throws AppError Conflict naming `what` and the holder's pid.
 */
export async function lockForProcess(path: string, what: string): Promise<ProcessLock> {
  const mine = JSON.stringify({ pid: process.pid, start: await processStart(process.pid), nonce: nonce() });
  const draft = `${path}.${process.pid}.${nonce()}`;
  await writeFile(draft, mine, { mode: 0o600 });
  try {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      if ((await linked(draft, path)) || (await takenOver(path, draft, what))) {
        const release = () => releaseLock(path, mine);
        return { release, [Symbol.asyncDispose]: release };
      }
      await sleep(Math.random() * LONGEST_PAUSE_MS);
    }
  } finally {
    await rm(draft, { force: true });
  }
  throw new AppError("Conflict", `${what} could not be locked.`, {
    hint: `Remove ${path} if nothing uses it.`,
  });
}

const nonce = () => randomBytes(6).toString("hex");

/** link(2) is atomic and never replaces: of several at once one succeeds, with its content in place. */
async function linked(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

async function livingHolder(content: string): Promise<number | undefined> {
  try {
    const { pid, start } = JSON.parse(content);
    const now = Number.isInteger(pid) ? await processStart(pid) : undefined;
    return now !== undefined && now === start ? pid : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Replace a stale lock. Several may find the same one: whoever makes the claim named after its content may, and
 * only while the lock still is that one. So a lock just taken is never mistaken for the stale one before it.
 */
async function takenOver(path: string, draft: string, what: string): Promise<boolean> {
  const held = await readFile(path, "utf8").catch(() => undefined);
  if (held === undefined) return false;
  const holder = await livingHolder(held);
  if (holder !== undefined) {
    throw new AppError("Conflict", `${what} is in use by another process (pid ${holder}).`, {
      hint: "Stop the other one first, or give this one another data directory (CDS_DATA_DIR).",
    });
  }
  const claim = `${path}.${createHash("sha256").update(held).digest("hex").slice(0, 16)}`;
  if (!(await linked(draft, claim))) {
    const claimant = await readFile(claim, "utf8").catch(() => undefined);
    if (claimant !== undefined && (await livingHolder(claimant)) === undefined)
      await rm(claim, { force: true });
    return false;
  }
  try {
    if ((await readFile(path, "utf8").catch(() => undefined)) !== held) return false;
    await rename(draft, path);
    return true;
  } finally {
    await rm(claim, { force: true });
  }
}

async function releaseLock(path: string, mine: string): Promise<void> {
  const held = await readFile(path, "utf8").catch(() => undefined);
  if (held === mine) await rm(path, { force: true });
}
