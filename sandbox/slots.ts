import { randomBytes } from "node:crypto";
import { chown, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { AppError } from "#schemas";
import { close, openRoot } from "./engines/fs/descriptors.ts";
import { removeTree } from "./engines/fs/remove.ts";
import type { Runtime } from "./runtime.ts";
import type { SandboxLog } from "./types.ts";

const REMOVE_MS = 60_000;

/** A place to run in: a number, a user of its own where the server can give one, and a directory. */
export interface Slot {
  readonly index: number;
  /** The user its programs run as on the host; null: the server's own (kept apart by a user namespace). */
  readonly uid: number | null;
  readonly gid: number | null;
  /** Host path, mode 0700, never used before; itself never visible in a sandbox. */
  readonly dir: string;
  /** Free path, short enough for a unix socket, where this slot's programs may reach one; removed with it. */
  readonly socketPath: string;
  /** Another such path at every call. */
  makeSocketPath(): string;
  /** Make `name` in `dir`, owned by the slot's user; answers its host path. */
  makeDir(name: string): Promise<string>;
  /** End everything that runs in the slot, remove its directory, let the next one in. */
  release(): Promise<void>;
}

/** Who owns what a slot's programs write, on the host; null: ourselves. */
export function ownerOf({ uid, gid }: Pick<Slot, "uid" | "gid">): { uid: number; gid: number } | null {
  return uid === null || gid === null ? null : { uid, gid };
}

interface Waiter {
  resolve: (index: number) => void;
  reject: (error: unknown) => void;
}

export interface SlotsOptions {
  runtime: Runtime;
  size: number;
  /** Start of the directories' names. */
  prefix: string;
  log: SandboxLog;
  /** Ends what runs in a slot that is being released. */
  endAll: (slot: Slot) => Promise<void>;
}

/** As many places as may be in use at once, handed out in the order they are asked for. */
export class Slots {
  readonly size: number;
  readonly #options: SlotsOptions;
  readonly #free: number[];
  readonly #waiting: Waiter[] = [];
  readonly #held = new Set<Slot>();
  #closed = false;

  constructor(options: SlotsOptions) {
    this.#options = options;
    this.size = options.size;
    this.#free = Array.from({ length: options.size }, (_, index) => options.size - 1 - index);
  }

  get inUse(): number {
    return this.#held.size;
  }

  /** The next free slot; waits for one. Throws AppError Cancelled when `signal` aborts, Unavailable after close. */
  async acquire(signal?: AbortSignal): Promise<Slot> {
    const index = await this.#takeIndex(signal);
    try {
      const slot = await this.#open(index);
      this.#held.add(slot);
      return slot;
    } catch (error) {
      this.#giveBack(index);
      throw error;
    }
  }

  /** Release all, and refuse who waits. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const waiter of this.#waiting.splice(0)) waiter.reject(shutDown());
    await Promise.all([...this.#held].map((slot) => slot.release()));
  }

  #takeIndex(signal?: AbortSignal): Promise<number> {
    if (this.#closed) return Promise.reject(shutDown());
    if (signal?.aborted) return Promise.reject(cancelled());
    const index = this.#free.pop();
    if (index !== undefined) return Promise.resolve(index);
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(cancelled());
      };
      const waiter: Waiter = {
        resolve: (value) => {
          signal?.removeEventListener("abort", onAbort);
          resolve(value);
        },
        reject,
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(waiter);
    });
  }

  #giveBack(index: number): void {
    const waiter = this.#waiting.shift();
    if (waiter !== undefined) waiter.resolve(index);
    else this.#free.push(index);
  }

  async #open(index: number): Promise<Slot> {
    const { runtime, prefix } = this.#options;
    const name = `${prefix}${index}-${randomBytes(6).toString("hex")}`;
    const dir = join(runtime.dir, name);
    const who = runtime.identityOf(index);
    const own = async (path: string) => {
      await mkdir(path, { mode: 0o700 });
      if (who !== null) await chown(path, who.uid, who.gid);
      return path;
    };
    await own(dir);
    const sockets: string[] = [];
    const makeSocketPath = () => {
      const path = join(runtime.socketDir, `${index}-${randomBytes(4).toString("hex")}.sock`);
      sockets.push(path);
      return path;
    };
    const slot: Slot = {
      index,
      uid: who?.uid ?? null,
      gid: who?.gid ?? null,
      dir,
      socketPath: makeSocketPath(),
      makeSocketPath,
      makeDir: (child) => own(join(dir, child)),
      release: () => {
        releasing ??= this.#release(slot, name, sockets);
        return releasing;
      },
    };
    let releasing: Promise<void> | undefined;
    return slot;
  }

  async #release(slot: Slot, name: string, sockets: readonly string[]): Promise<void> {
    const { runtime, endAll, log } = this.#options;
    try {
      await endAll(slot);
    } catch (error) {
      // Its number, and with it its user, must not go to anybody else while something of it runs.
      log.error({ err: error, slot: slot.index }, "a slot could not be cleared and stays out of use");
      this.#held.delete(slot);
      return;
    }
    try {
      const root = await openRoot(runtime.dir);
      try {
        await removeTree(root, name, REMOVE_MS);
      } finally {
        await close(root);
      }
      for (const path of sockets) await rm(path, { force: true });
    } catch (error) {
      log.error({ err: error, dir: slot.dir }, "a slot's directory could not be removed");
    }
    this.#held.delete(slot);
    this.#giveBack(slot.index);
  }
}

const cancelled = () => new AppError("Cancelled", "The wait for a sandbox slot was cancelled.");
const shutDown = () => new AppError("Unavailable", "The sandbox is shutting down.");
