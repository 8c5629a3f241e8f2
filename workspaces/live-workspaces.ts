import type { Log } from "#platform/log.ts";
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
  uses: number;
  /** ms since 1970; when the last use ended. */
  idleSince: number;
}

/** An unused workspace, for whoever has to make room. */
export interface IdleWorkspace {
  readonly project_id: string;
  readonly path: string;
  readonly idleSince: number;
  /** False when somebody has begun to use it meanwhile. What is in it and not kept yet is kept first. */
  remove(): Promise<boolean>;
}

/** The workspaces of this process: one per project, shared by all that its owner runs in it. */
export class LiveWorkspaces {
  readonly #options: LiveWorkspacesOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #leaving = new Set<Promise<unknown>>();
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
    let entry = this.#entries.get(project_id);
    const fresh = entry === undefined;
    entry ??= this.#open(owner, project_id, signal);
    entry.uses += 1;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      entry.uses -= 1;
      entry.idleSince = Date.now();
    };
    try {
      const workspace = await entry.opened;
      if (!fresh) await workspace.refresh();
      return { workspace, release, flush: (summary) => this.#flush(workspace, summary) };
    } catch (error) {
      release();
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
    await Promise.all(this.#leaving);
  }

  #open(owner: WorkspaceOwner, project_id: string, signal: AbortSignal): Entry {
    this.#makeRoom();
    const entry: Entry = {
      project_id,
      opened: LiveWorkspace.open(this.#options, owner, project_id, signal),
      uses: 0,
      idleSince: Date.now(),
    };
    this.#entries.set(project_id, entry);
    entry.opened.catch(() => {
      if (this.#entries.get(project_id) === entry) this.#entries.delete(project_id);
    });
    return entry;
  }

  #makeRoom(): void {
    if (this.#entries.size < this.#options.max) return;
    const [oldest] = [...this.#entries.values()]
      .filter(({ uses }) => uses === 0)
      .sort((one, other) => one.idleSince - other.idleSince);
    if (oldest === undefined) {
      throw new AppError("QuotaExceeded", `All ${this.#options.max} workspaces are in use.`, {
        hint: "Wait until somebody's programs have ended, or close a terminal.",
      });
    }
    const leaving = this.#remove(oldest);
    this.#leaving.add(leaving);
    void leaving.finally(() => this.#leaving.delete(leaving));
  }

  async #remove(entry: Entry): Promise<boolean> {
    if (entry.uses > 0 || this.#entries.get(entry.project_id) !== entry) return false;
    await this.#end(entry);
    return true;
  }

  async #end(entry: Entry): Promise<void> {
    if (this.#entries.get(entry.project_id) === entry) this.#entries.delete(entry.project_id);
    const workspace = await entry.opened.catch(() => undefined);
    if (workspace === undefined) return;
    await this.#flush(workspace, "Left in the workspace");
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
