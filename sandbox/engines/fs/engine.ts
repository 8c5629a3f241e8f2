import { mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join } from "node:path";
import { AppError } from "#schemas";
import { notAvailable, remembered } from "../../availability.ts";
import { operation } from "../../operations.ts";
import type { Availability, Engine } from "../../types.ts";
import { FsDirectory } from "./directory.ts";
import { Jail } from "./jail.ts";
import type { FsQuota } from "./quota.ts";

const TRIAL_BYTES = 64;

export interface FsSpec {
  /** Absolute path on the host of a directory, no link; the way to it must be the caller's own. */
  root: string;
  /** Who owns what is made; for a server running as root that works in another user's directory. */
  owner?: { uid: number; gid: number };
  quota: FsQuota;
  /** Whether every change is refused. */
  readOnly?: boolean;
}

function refuse(message: string, hint: string): never {
  throw new AppError("InvalidParams", message, { hint });
}

function checkSpec({ root, owner, quota }: FsSpec): void {
  if (!isAbsolute(root) || root.includes("\0")) {
    refuse(`${JSON.stringify(root)} is not an absolute path.`, "Name the directory from `/` on.");
  }
  for (const id of owner === undefined ? [] : [owner.uid, owner.gid]) {
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 32 - 1)
      refuse(`${id} is no user or group.`, "A number.");
  }
  for (const name of ["bytes", "files", "fileBytes"] as const) {
    const value = quota[name];
    if (!Number.isSafeInteger(value) || value <= 0) {
      refuse(`The quota ${name} is ${value}.`, "Quotas are whole numbers above 0.");
    }
  }
}

/** Whether a directory can be used without being left, shown in one of our own. */
async function tryOut(): Promise<Availability> {
  return await openForTrial().then(
    () => ({ available: true, tier: null, reasons: [] }),
    (error: unknown) => ({
      ...notAvailable(error),
      hint: "The server needs Linux with /proc mounted and a writable temporary directory (TMPDIR).",
    }),
  );
}

async function openForTrial(): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "cds-fs-"));
  try {
    await symlink("/etc", join(dir, "link"));
    await using jail = await Jail.open(dir);
    await jail.write("a/file", Buffer.from("trial"));
    await jail.read("a/file", TRIAL_BYTES);
    const followed = await jail.list("link").then(
      () => true,
      () => false,
    );
    if (followed)
      throw new AppError("EngineUnavailable", "This system's directories cannot be opened safely.");
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Directories on disk that we use while programs in sandboxes change them. */
export class FsEngine implements Engine<FsSpec, FsDirectory> {
  readonly name = "fs";
  readonly probe = remembered(tryOut);
  readonly #open = new Set<FsDirectory>();
  #closed = false;

  /**
   * Use a directory. @throws AppError InvalidParams, NotFound when there is none, Forbidden or Conflict when it is a
   * link or a file.
   */
  start(spec: FsSpec): Promise<FsDirectory> {
    return operation(this.name, "start", {}, async () => {
      this.#checkOpen();
      checkSpec(spec);
      const { root, owner, quota, readOnly = false } = spec;
      const jail = await Jail.open(root, owner === undefined ? {} : { owner });
      // Closed while it was being opened.
      if (this.#closed) await jail.close();
      this.#checkOpen();
      const onClosed = (directory: FsDirectory) => this.#open.delete(directory);
      const directory = new FsDirectory({ jail, root, quota: { ...quota }, readOnly, onClosed });
      this.#open.add(directory);
      return directory;
    });
  }

  list(): readonly FsDirectory[] {
    return [...this.#open];
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#open].map((directory) => directory[Symbol.asyncDispose]()));
  }

  #checkOpen(): void {
    if (this.#closed) throw new AppError("Unavailable", "The sandbox is shutting down.");
  }
}
