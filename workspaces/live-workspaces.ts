import type { Log } from "#platform/log.ts";
import { orAborted } from "#platform/waiting.ts";
import { AppError } from "#schemas";
import {
  type Flushed,
  LiveWorkspace,
  type LiveWorkspaceDeps,
  type WorkspaceOwner,
} from "./live-workspace.ts";

/** A workspace somebody uses at the moment; it stays until everybody has let go. */
export interface WorkspaceUse {
  readonly workspace: LiveWorkspace;
  /** As the workspace's, but never throws: what could not be kept is said in a warning. */
  flush(summary: string): Promise<Flushed>;
  /** Idempotent. */
  release(): void;
}

export interface LiveWorkspacesOptions extends LiveWorkspaceDeps {
  /** Workspaces on disk at once; beyond, the longest unused one goes. */
  readonly max: number;
  readonly log: Log;
}

interface Entry {
  readonly project_id: string;
  readonly opened: Promise<LiveWorkspace>;
  /** Ends the wait for a slot, when nobody waits for the workspace any more. */
  readonly stop: AbortController;
  uses: number;
  /** ms since 1970; when the last use ended. */
  idleSince: number;
}

/** An unused workspace, for whoever has to make room. */
export interface IdleWorkspace {
  readonly project_id: string;
  readonly path: string;
  readonly idleSince: number;
  /** What is in it and not kept yet is kept first; false when that cannot be, or somebody has begun to use it. */
  remove(): Promise<boolean>;
}

const SUMMARY = "Left in the workspace";

const cancelled = () => new AppError("Cancelled", "The wait for the project's workspace was cancelled.");

/** The workspaces of this process: one per project, shared by all that its owner runs in it. */
export class LiveWorkspaces {
  readonly #options: LiveWorkspacesOptions;
  readonly #entries = new Map<string, Entry>();
  #closed = false;

  constructor(options: LiveWorkspacesOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#entries.size;
  }

  /**
   * The project's workspace, made if need be, with the project as it is now. Who asks must own the project.
   * @throws AppError NotFound, QuotaExceeded when all workspaces there may be are in use, Cancelled, Unavailable.
   */
  async use(owner: WorkspaceOwner, project_id: string, signal: AbortSignal): Promise<WorkspaceUse> {
    if (this.#closed) throw new AppError("Unavailable", "The server is shutting down.");
    if (!this.#entries.has(project_id)) await this.#makeRoom();
    if (this.#closed) throw new AppError("Unavailable", "The server is shutting down.");
    const present = this.#entries.get(project_id);
    const fresh = present === undefined;
    const entry = present ?? this.#open(owner, project_id);
    entry.uses += 1;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      entry.uses -= 1;
      entry.idleSince = Date.now();
    };
    try {
      const workspace = await orAborted(entry.opened, signal, cancelled);
      if (!fresh) await workspace.refresh();
      return { workspace, release, flush: (summary) => this.#flush(workspace, summary) };
    } catch (error) {
      release();
      // Whoever else waits for it goes on waiting; a workspace that is there already takes no notice.
      if (entry.uses === 0) entry.stop.abort();
      throw error;
    }
  }

  /** Those that nobody uses, longest unused first. */
  async idle(): Promise<IdleWorkspace[]> {
    const idle = [...this.#entries.values()].filter(({ uses }) => uses === 0);
    const opened = await Promise.all(
      idle.map(async (entry) => ({ entry, workspace: await entry.opened.catch(() => undefined) })),
    );
    return opened
      .flatMap(({ entry, workspace }) =>
        workspace === undefined
          ? []
          : [
              {
                project_id: entry.project_id,
                path: workspace.slot.dir,
                idleSince: entry.idleSince,
                remove: () => this.#remove(entry),
              },
            ],
      )
      .sort((one, other) => one.idleSince - other.idleSince);
  }

  /** The project is gone: whatever runs in its workspace ends, and its files go. */
  async drop(project_id: string): Promise<void> {
    const entry = this.#entries.get(project_id);
    if (entry === undefined) return;
    this.#entries.delete(project_id);
    await entry.opened.then(
      (workspace) => workspace.close(),
      () => undefined,
    );
  }

  /** Keep what is not kept, and remove all. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#entries.values()].map((entry) => this.#end(entry)));
  }

  #open(owner: WorkspaceOwner, project_id: string): Entry {
    const stop = new AbortController();
    const entry: Entry = {
      project_id,
      stop,
      opened: LiveWorkspace.open(this.#options, owner, project_id, stop.signal),
      uses: 0,
      idleSince: Date.now(),
    };
    this.#entries.set(project_id, entry);
    entry.opened.catch(() => {
      if (this.#entries.get(project_id) === entry) this.#entries.delete(project_id);
    });
    return entry;
  }

  async #makeRoom(): Promise<void> {
    if (this.#entries.size < this.#options.max) return;
    const unused = [...this.#entries.values()]
      .filter(({ uses }) => uses === 0)
      .sort((one, other) => one.idleSince - other.idleSince);
    for (const entry of unused) if (await this.#remove(entry)) break;
    if (this.#entries.size >= this.#options.max) {
      throw new AppError("QuotaExceeded", `All ${this.#options.max} workspaces are in use.`, {
        hint: "Wait until somebody's programs have ended, or close a terminal.",
      });
    }
  }

  /** What cannot be kept (a full project, a database that is away) is not removed either. */
  async #remove(entry: Entry): Promise<boolean> {
    const unused = () => entry.uses === 0 && this.#entries.get(entry.project_id) === entry;
    const workspace = await entry.opened.catch(() => undefined);
    if (workspace === undefined || !unused()) return false;
    try {
      await workspace.flush(SUMMARY);
    } catch (error) {
      const gone = error instanceof AppError && error.code === "NotFound";
      if (!gone)
        this.#options.log.warn(
          { err: error, project_id: entry.project_id },
          "a workspace stays: it cannot be kept",
        );
      if (!gone) return false;
    }
    // Somebody may have begun to use it while it was being kept.
    if (!unused()) return false;
    this.#entries.delete(entry.project_id);
    await workspace.close();
    return true;
  }

  /** At the end of the process: nothing of it can stay. */
  async #end(entry: Entry): Promise<void> {
    this.#entries.delete(entry.project_id);
    const workspace = await entry.opened.catch(() => undefined);
    if (workspace === undefined) return;
    const { warnings } = await this.#flush(workspace, SUMMARY);
    if (warnings.length > 0) {
      this.#options.log.error({ project_id: entry.project_id, warnings }, "a workspace was not kept whole");
    }
    await workspace.close();
  }

  async #flush(workspace: LiveWorkspace, summary: string): Promise<Flushed> {
    try {
      return await workspace.flush(summary);
    } catch (error) {
      if (!(error instanceof AppError)) this.#options.log.error({ err: error }, "changes could not be kept");
      const why = error instanceof AppError ? error.message : "something went wrong on the server";
      return { warnings: [`What was changed is not saved: ${why}`] };
    }
  }
}
