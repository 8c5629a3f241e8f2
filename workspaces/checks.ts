import type { Db } from "#database";
import { readBlobs } from "#database/projects/index.ts";
import type { Delta, TreeFile } from "#database/projects/types.ts";
import type { Config } from "#platform/config/config.ts";
import { randomBase32 } from "#platform/ids.ts";
import {
  Jail,
  ownerOf,
  type SandboxHost,
  type SandboxLimits,
  type Slot,
  startCommand,
  withNode,
} from "#sandbox";
import { DiskGuard } from "./disk-guard.ts";
import { programLimits } from "./program-limits.ts";
import { fill, laidOver } from "./workspace.ts";

/** Where a tree stands inside: where agents have their working directory. */
const INSIDE = "/workspace/request/work";
/** Of a command's output, for people and models to read. */
const OUTPUT_BYTES = 32 * 1024;
const NAME_CHARS = 10;
/** No validator needs to see more of one file. */
const MAX_READ_BYTES = 8 * 1024 * 1024;

/** How a command of a check ended. */
export interface CheckRun {
  /** Null when it was ended by a limit. */
  readonly code: number | null;
  /** Beginning and end of what it wrote on both streams. */
  readonly output: string;
  readonly timedOut: boolean;
}

/** Where something is tried out. */
export interface Bench {
  readonly host: Pick<SandboxHost, "start">;
  /** Trees are made in its directory, and removed when they are disposed of. */
  readonly slot: Slot;
  /** Ends what runs. */
  readonly signal: AbortSignal;
}

export interface ChecksPlace extends Bench {
  readonly db: Db;
  readonly limits: SandboxLimits;
  /** Longest time for one command, ms. */
  readonly timeoutMs: number;
  /** What a tree may grow to, and from which share of the disk on that counts. */
  readonly disk: { readonly allowedBytes: number; readonly threshold: number };
}

/** A bench with the limits of this server's runs. */
export function checksPlace(db: Db, config: Config, bench: Bench): ChecksPlace {
  return {
    ...bench,
    db,
    timeoutMs: config.run.checkTimeoutMs,
    limits: programLimits(config),
    disk: { threshold: config.queue.diskThreshold, allowedBytes: config.quota.projectBytes },
  };
}

/**
 * A project's files to be looked at and tried out: on disk only once a command is run, in a copy of their own, in a
 * sandbox without network. What commands write stays in the copy.
 */
export class CheckTree implements AsyncDisposable {
  readonly #place: ChecksPlace;
  readonly #files: ReadonlyMap<string, TreeFile>;
  readonly #name = `check-${randomBase32(NAME_CHARS)}`;
  #made: Promise<string> | undefined;

  constructor(place: ChecksPlace, files: readonly TreeFile[]) {
    this.#place = place;
    this.#files = new Map(files.map((file) => [file.path, file]));
  }

  /** Its files' paths, in order. */
  async list(): Promise<readonly string[]> {
    return [...this.#files.keys()];
  }

  /** Null: there is none, or it is larger than 8 MiB. */
  async read(path: string): Promise<Uint8Array | null> {
    const file = this.#files.get(path);
    if (file === undefined || file.size > MAX_READ_BYTES) return null;
    const found = await readBlobs(this.#place.db, [file.blob_hash]);
    return found.get(file.blob_hash.toString("hex")) ?? null;
  }

  /**
   * Run a shell's command in the copy.
   * @throws AppError of the sandbox, Cancelled when the signal aborts before it starts.
   */
  async run(command: string, { timeoutMs }: { timeoutMs?: number } = {}): Promise<CheckRun> {
    const { host, slot, limits, disk, signal, ...most } = this.#place;
    this.#made ??= this.#make();
    const source = await this.#made;
    signal.throwIfAborted();
    const spec = withNode({
      name: "check",
      argv: ["sh", "-c", `exec 2>&1\n${command}`],
      env: { CI: "1", HOME: "/tmp" },
      cwd: INSIDE,
      mounts: [{ source, target: INSIDE, mode: "rw" as const }],
      limits,
      slot,
    });
    const running = await startCommand(host, spec, {
      outputBytes: OUTPUT_BYTES,
      timeoutMs: Math.min(timeoutMs ?? most.timeoutMs, most.timeoutMs),
      signal,
    });
    using _guard = new DiskGuard({ directory: source, ...disk, onFull: () => void running.kill() });
    const { exit_code, stdout, limit } = await running.finished;
    signal.throwIfAborted();
    return { code: exit_code, output: stdout.toString("utf8"), timedOut: limit === "time" };
  }

  /** Remove its copy. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#made === undefined) return;
    await this.#made.catch(() => undefined);
    await using jail = await Jail.open(this.#place.slot.dir);
    await jail.remove(this.#name);
  }

  async #make(): Promise<string> {
    const { db, slot } = this.#place;
    const directory = await slot.makeDir(this.#name);
    await fill(db, directory, [...this.#files.values()], ownerOf(slot));
    return directory;
  }
}

/** The same project with some files changed: before and after, for a validator to compare. */
export class CheckTrees implements AsyncDisposable {
  readonly before: CheckTree;
  readonly after: CheckTree;
  readonly #place: ChecksPlace;
  readonly #tree: readonly TreeFile[];
  readonly #changes: readonly Delta[];
  readonly #revision: number;
  readonly #overlays: CheckTree[] = [];

  /** `tree` at `revision`, and what was made of it. */
  constructor(place: ChecksPlace, tree: readonly TreeFile[], changes: readonly Delta[], revision: number) {
    this.#place = place;
    this.#tree = tree;
    this.#changes = changes;
    this.#revision = revision;
    this.before = new CheckTree(place, tree);
    this.after = new CheckTree(place, laidOver(tree, changes, revision));
  }

  /** As before, but for these paths, which are as after. */
  overlay(paths: readonly string[]): CheckTree {
    const wanted = new Set(paths);
    const some = this.#changes.filter(({ path }) => wanted.has(path));
    const tree = new CheckTree(this.#place, laidOver(this.#tree, some, this.#revision));
    this.#overlays.push(tree);
    return tree;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const tree of [this.before, this.after, ...this.#overlays]) await tree[Symbol.asyncDispose]();
  }
}
