import type { Database } from "#database";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import {
  type CleanSource,
  type Engines,
  languages,
  NetworkGrants,
  openEngines,
  type Sandboxes,
} from "#sandbox";
import type { MethodResult } from "#schemas";
import { LiveWorkspaces } from "#workspaces/live-workspaces.ts";
import { Landing } from "./landing.ts";
import { Machines } from "./machines.ts";
import { Modules } from "./modules.ts";
import { Programs } from "./programs.ts";
import { Terminals } from "./terminals.ts";

export interface WorkbenchDeps {
  readonly database: Database;
  readonly config: Config;
  readonly sandboxes: Sandboxes;
  readonly log: Log;
}

const MIB = 1024 * 1024;
/** Memory that machines kept ready must leave free. */
const RESERVE_BYTES = 2048 * MIB;
const SNAPSHOTS = { maxCount: 1000, maxBytes: 64 * 1024 * MIB };

/** What users drive by hand, of this process: programs, terminals, modules and machines, and the files they work on. */
export class Workbench {
  readonly workspaces: LiveWorkspaces;
  readonly programs: Programs;
  readonly terminals: Terminals;
  readonly modules: Modules;
  readonly machines: Machines;
  readonly landing: Landing;
  readonly engines: Engines;
  /** What of the network may be granted to programs, whoever runs them. */
  readonly grants: NetworkGrants;
  readonly #sandboxes: Sandboxes;

  /** @throws AppError InvalidParams for hosts in the settings that are none. */
  static async open(deps: WorkbenchDeps): Promise<Workbench> {
    const { sandboxes, config, log } = deps;
    const { memoryBytes, diskBytes, machines, pool, idleMs, imageDir } = config.micro;
    const engines = await openEngines({
      sandboxes,
      dataDir: config.dataDir,
      log,
      imageDir,
      micro: {
        defaults: { memoryBytes, diskBytes, cpus: 1 },
        maxMachines: machines,
        maxMemoryBytes: machines * (memoryBytes + 128 * MIB),
        warm: { node: Math.min(pool, machines), python: Math.min(pool, machines) },
        reserveBytes: RESERVE_BYTES,
        idleMs,
        snapshots: SNAPSHOTS,
      },
    });
    try {
      return new Workbench(deps, engines);
    } catch (error) {
      await engines.close();
      throw error;
    }
  }

  private constructor({ database, config, sandboxes, log }: WorkbenchDeps, engines: Engines) {
    this.engines = engines;
    this.#sandboxes = sandboxes;
    this.workspaces = new LiveWorkspaces({
      database,
      sandboxes,
      quota: config.quota,
      max: config.workbench.workspaces,
      log,
    });
    this.grants = new NetworkGrants(config.workbench, log);
    const deps = { config, sandboxes, workspaces: this.workspaces, grants: this.grants, log };
    this.landing = new Landing({ database, config, sandboxes });
    this.programs = new Programs(deps);
    this.terminals = new Terminals(deps);
    this.modules = new Modules({ database, config, engine: engines.wasm, log });
    this.machines = new Machines({ db: database.db, config, engine: engines.micro, log });
  }

  /** What can be run here, found out by trying. */
  async status(): Promise<MethodResult<"sandbox.status">> {
    const engines = await Promise.all(
      this.engines.all().map(async (engine) => ({ name: engine.name, ...(await engine.probe()) })),
    );
    const found = await languages(this.#sandboxes).catch(() => []);
    return {
      engines,
      languages: found.map(({ name, version }) => ({ name, version })),
      hosts: [...this.grants.hosts],
    };
  }

  /** What of all this may be cleared away when nobody uses it. */
  cleanSources(): CleanSource[] {
    const { workspaces, machines } = this;
    return [
      {
        name: "workspaces",
        list: async () =>
          (await workspaces.idle()).map(({ project_id, path, idleSince, remove }) => ({
            id: project_id,
            path,
            idleSince,
            remove: async () => ((await remove()) ? "removed" : "busy"),
          })),
      },
      {
        name: "snapshots",
        list: async () =>
          (await machines.orphans()).map(({ id, bytes, remove }) => ({ id, bytes, idleSince: null, remove })),
      },
    ];
  }

  /** A project is gone: what runs on it ends, its files leave the disk. */
  async dropProject(project_id: string): Promise<void> {
    const { programs, terminals, modules } = this;
    await Promise.all([programs, terminals, modules].map((each) => each.endProject(project_id)));
    await this.workspaces.drop(project_id);
  }

  /** End everything; what programs changed is kept. */
  async close(): Promise<void> {
    const { programs, terminals, modules, machines } = this;
    const parts = [programs, terminals, modules, machines];
    const ended = await Promise.allSettled(parts.map((each) => each.close()));
    // Whatever did not end well: what is on disk is kept.
    await this.workspaces.close();
    await this.engines.close();
    for (const part of ended) if (part.status === "rejected") throw part.reason;
  }
}
