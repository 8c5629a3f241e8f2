import type { Config } from "#platform/config/config.ts";
import { Admission } from "#platform/host/admission.ts";
import type { Log } from "#platform/log.ts";
import { type NetworkAccess, type NetworkGrants, type Sandboxes, type SandboxSpec, withNode } from "#sandbox";
import { AppError } from "#schemas";
import { DiskGuard } from "#workspaces/disk-guard.ts";
import { INSIDE, type WorkspaceOwner } from "#workspaces/live-workspace.ts";
import type { LiveWorkspaces, WorkspaceUse } from "#workspaces/live-workspaces.ts";
import { programLimits } from "#workspaces/program-limits.ts";

const RETRY_SECONDS = 10;

export interface WorkplaceDeps {
  readonly config: Config;
  readonly sandboxes: Sandboxes;
  readonly workspaces: LiveWorkspaces;
  readonly grants: NetworkGrants;
  readonly log: Log;
}

export interface PlaceRequest {
  readonly project_id: string;
  readonly network: boolean | readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Directory of the project. */
  readonly cwd?: string | undefined;
}

/** A project's workspace and a way to the network, for one program. Ends with `close`; what the program changed is kept by `use.flush` before. */
export class Workplace {
  readonly use: WorkspaceUse;
  /** `host:port` that the program tried to reach and was not allowed to. */
  readonly refusedHosts: readonly string[];
  readonly #deps: WorkplaceDeps;
  readonly #request: PlaceRequest & { readonly user_id: string };
  readonly #network: NetworkAccess | undefined;
  #guard: DiskGuard | undefined;

  private constructor(
    deps: WorkplaceDeps,
    request: PlaceRequest & { readonly user_id: string },
    use: WorkspaceUse,
    network: NetworkAccess | undefined,
    refused: string[],
  ) {
    this.#deps = deps;
    this.#request = request;
    this.use = use;
    this.#network = network;
    this.refusedHosts = refused;
  }

  /** @throws AppError Unavailable on a full machine, Forbidden or InvalidParams for hosts, those of workspaces. */
  static async open(
    deps: WorkplaceDeps,
    owner: WorkspaceOwner,
    request: PlaceRequest,
    signal: AbortSignal,
  ): Promise<Workplace> {
    const rules = deps.grants.rules(request.network);
    await checkRoom(deps.config);
    const use = await deps.workspaces.use(owner, request.project_id, signal);
    try {
      const refused: string[] = [];
      const { slot } = use.workspace;
      const network =
        rules === null ? undefined : await deps.grants.open(slot, rules, (host) => void refused.push(host));
      return new Workplace(deps, { ...request, user_id: owner.user_id }, use, network, refused);
    } catch (error) {
      use.release();
      throw error;
    }
  }

  /** Everything of a spec but the program. */
  spec(name: string): Omit<SandboxSpec, "argv"> {
    const { slot, work, home } = this.use.workspace;
    const { cwd, env, user_id } = this.#request;
    return withNode({
      name,
      env: { HOME: INSIDE.home, ...this.#network?.env, ...env },
      cwd: cwd === undefined ? INSIDE.work : `${INSIDE.work}/${insidePath(cwd)}`,
      mounts: [
        { source: work, target: INSIDE.work, mode: "rw" },
        { source: home, target: INSIDE.home, mode: "rw" },
      ],
      limits: programLimits(this.#deps.config),
      slot,
      owner: user_id,
      ...(this.#network === undefined ? {} : { bridge: this.#network.bridge }),
    });
  }

  /** Call `onFull` once the workspace takes more of the disk than it may. */
  guardDisk(onFull: () => void): void {
    this.#guard = new DiskGuard({
      directory: this.use.workspace.slot.dir,
      threshold: 0,
      allowedBytes: this.#deps.config.workbench.workspaceBytes,
      onFull,
    });
  }

  /** Let go; the program has ended. */
  async close(): Promise<void> {
    this.#guard?.[Symbol.dispose]();
    await this.#network?.proxy.close();
    this.use.release();
  }
}

/** @throws AppError InvalidParams for a path that leads out of the project. */
function insidePath(path: string): string {
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (path.startsWith("/") || names.includes("..") || path.includes("\0")) {
    const message = "params.cwd: It is no directory of the project.";
    throw new AppError("InvalidParams", message, { issues: [{ path: "params.cwd", message }] });
  }
  return names.join("/");
}

/** MU-5's thresholds, for what people start by hand. */
export async function checkRoom({ queue, dataDir }: Config): Promise<void> {
  const admission = new Admission({ ...queue, processBytes: 0, dataDir });
  const reason = await admission.blockedReason();
  if (reason === null) return;
  const what = reason === "disk_threshold_exceeded" ? "disk space" : "memory";
  throw new AppError("Unavailable", `The server has too little ${what} left to start anything.`, {
    reason,
    retry_after_seconds: RETRY_SECONDS,
    hint: "Try again when other work has ended.",
  });
}
