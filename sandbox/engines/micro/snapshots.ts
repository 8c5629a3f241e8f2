import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { newId } from "#platform/ids.ts";
import { AppError } from "#schemas";
import type { SandboxLog } from "../../types.ts";
import type { MicroSettings } from "./settings.ts";

const META = "snapshot.json";

const Meta = z.object({
  driver: z.enum(["microsandbox", "qemu"]),
  /** What has to be the same where it is restored. */
  fingerprint: z.string(),
  machine: z.object({
    image: z.enum(["node", "python"]),
    memoryBytes: z.number(),
    cpus: z.number(),
    diskBytes: z.number(),
  }),
  bytes: z.number(),
  createdAt: z.number(),
});

type Meta = z.infer<typeof Meta>;

/** A machine's whole state on disk. Whose it is, its taker knows. */
export interface SnapshotInfo extends Meta {
  id: string;
}

/** The snapshots of one data directory: they outlive the server. */
export class Snapshots {
  readonly #dir: string;
  readonly #limits: MicroSettings["snapshots"];
  readonly #known = new Map<string, SnapshotInfo>();
  /** Bytes and number of those that are being taken. */
  #promised = { bytes: 0, count: 0 };

  private constructor(dir: string, limits: MicroSettings["snapshots"]) {
    this.#dir = dir;
    this.#limits = limits;
  }

  /** Reads what is there; what a crash left half made is removed. */
  static async open(dir: string, limits: MicroSettings["snapshots"], log: SandboxLog): Promise<Snapshots> {
    const snapshots = new Snapshots(join(dir, "snapshots"), limits);
    await mkdir(snapshots.#dir, { recursive: true, mode: 0o711 });
    for (const id of await readdir(snapshots.#dir)) {
      try {
        const meta = Meta.parse(JSON.parse(await readFile(join(snapshots.#dir, id, META), "utf8")));
        snapshots.#known.set(id, { id, ...meta });
      } catch (error) {
        log.info({ err: error, snapshot: id }, "removed a snapshot of a virtual machine that is not whole");
        await rm(join(snapshots.#dir, id), { recursive: true, force: true });
      }
    }
    return snapshots;
  }

  /** Oldest first. */
  list(): SnapshotInfo[] {
    return [...this.#known.values()].sort((a, b) => a.createdAt - b.createdAt);
  }

  /** Throws AppError NotFound. */
  get(id: string): SnapshotInfo {
    const found = this.#known.get(id);
    if (found !== undefined) return found;
    throw new AppError("NotFound", "There is no such snapshot of a virtual machine.");
  }

  /** Where its files lie. */
  directory(id: string): string {
    return join(this.#dir, id);
  }

  /**
   * Let `write` fill a new directory with at most so many bytes; answers the id. Throws AppError QuotaExceeded when
   * number or size of all are used up.
   */
  async add(
    about: Omit<Meta, "bytes" | "createdAt">,
    write: (dir: string, maxBytes: number) => Promise<number>,
  ): Promise<string> {
    const room = this.#room(about.machine.memoryBytes);
    const id = newId("snapshot");
    const draft = join(this.#dir, `${id}.tmp`);
    this.#promised = { bytes: this.#promised.bytes + room, count: this.#promised.count + 1 };
    try {
      await mkdir(draft, { mode: 0o711 });
      const bytes = await write(draft, room);
      const meta: Meta = { ...about, bytes, createdAt: Date.now() };
      await writeFile(join(draft, META), JSON.stringify(meta), { mode: 0o600 });
      await rename(draft, this.directory(id));
      this.#known.set(id, { id, ...meta });
      return id;
    } catch (error) {
      await rm(draft, { recursive: true, force: true });
      throw error;
    } finally {
      this.#promised = { bytes: this.#promised.bytes - room, count: this.#promised.count - 1 };
    }
  }

  /** Throws AppError NotFound. */
  async delete(id: string): Promise<void> {
    const { id: found } = this.get(id);
    this.#known.delete(found);
    await rm(this.directory(found), { recursive: true, force: true });
  }

  /** Bytes the next one may have: no more than its machine's memory and a bit. */
  #room(memoryBytes: number): number {
    const used = this.list().reduce((sum, { bytes }) => sum + bytes, this.#promised.bytes);
    const left = this.#limits.maxBytes - used;
    if (this.#known.size + this.#promised.count >= this.#limits.maxCount || left <= 0) {
      throw new AppError("QuotaExceeded", "There is no room for another snapshot of a virtual machine.", {
        hint: "Delete one.",
      });
    }
    return Math.min(left, memoryBytes + DEVICES_BYTES);
  }
}

/** Devices, registers and the stream's own marks besides the memory. */
const DEVICES_BYTES = 32 * 1024 * 1024;
