import type { Database } from "#database";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import type { Sandboxes } from "#sandbox";
import { LiveWorkspaces } from "#workspaces/live-workspaces.ts";
import { NetworkGrants } from "./network-grant.ts";
import { Programs } from "./programs.ts";
import { Terminals } from "./terminals.ts";

export interface WorkbenchDeps {
  readonly database: Database;
  readonly config: Config;
  readonly sandboxes: Sandboxes;
  readonly log: Log;
}

/** What users drive by hand, of this process: programs, terminals, modules and machines, and the files they work on. */
export class Workbench {
  readonly workspaces: LiveWorkspaces;
  readonly programs: Programs;
  readonly terminals: Terminals;
  readonly grants: NetworkGrants;

  /** @throws AppError InvalidParams for hosts in the settings that are none. */
  constructor({ database, config, sandboxes, log }: WorkbenchDeps) {
    this.workspaces = new LiveWorkspaces({
      database,
      sandboxes,
      quota: config.quota,
      max: config.workbench.workspaces,
      log,
    });
    this.grants = new NetworkGrants(config.workbench, log);
    const deps = { config, sandboxes, workspaces: this.workspaces, grants: this.grants, log };
    this.programs = new Programs(deps);
    this.terminals = new Terminals(deps);
  }

  /** A project is gone: what runs on it ends, its files leave the disk. */
  async dropProject(project_id: string): Promise<void> {
    await Promise.all([this.programs.endProject(project_id), this.terminals.endProject(project_id)]);
    await this.workspaces.drop(project_id);
  }

  /** End everything; what programs changed is kept. */
  async close(): Promise<void> {
    await Promise.all([this.programs.close(), this.terminals.close()]);
    await this.workspaces.close();
  }
}
