import type { Dispatcher } from "undici";
import type { Config } from "#platform/config/config.ts";
import type { Log } from "#platform/log.ts";
import { type NetworkAccess, NetworkGrants, ownerOf, type Sandboxes, type Slot } from "#sandbox";
import { programLimits } from "#workspaces/program-limits.ts";
import type { WorkspacePlace } from "#workspaces/workspace.ts";
import type { RunningTask } from "../run/run-deps.ts";
import type { Runner, Station } from "../runners/runner.ts";
import { NativeSession } from "./session.ts";
import { SandboxToolHost } from "./tool-host.ts";

export interface NativeRunnerDeps {
  readonly sandboxes: Sandboxes;
  readonly config: Config;
  readonly log: Log;
  /** Base address of the model server, without `/v1`. */
  readonly llmUrl: string;
  readonly dispatcher: Dispatcher;
}

/** Agents driven by our own loop, in this process; their tools work in a slot of the run's own. */
export class NativeRunner implements Runner {
  readonly #deps: NativeRunnerDeps;
  readonly #grants: NetworkGrants;

  /** @throws AppError InvalidParams for hosts in the settings that are none. */
  constructor(deps: NativeRunnerDeps) {
    this.#deps = deps;
    this.#grants = new NetworkGrants(deps.config.workbench, deps.log);
  }

  async acquire(task: RunningTask, signal: AbortSignal): Promise<Station> {
    // Before a slot is taken: an operator may have taken hosts back since.
    const rules = this.#grants.rules(task.network);
    const slot = await this.#deps.sandboxes.slots.acquire(signal);
    const opened = new AsyncDisposableStack();
    opened.defer(() => slot.release());
    try {
      const area = await slot.makeDir("area");
      const home = await slot.makeDir("home");
      const requests = await slot.makeDir("requests");
      const refusedHosts = new Set<string>();
      const network =
        rules === null
          ? undefined
          : opened.adopt(
              await this.#grants.open(slot, rules, (host) => void refusedHosts.add(host)),
              ({ proxy }) => proxy.close(),
            );
      const host = opened.use(await this.#openHost(slot, { area, home, network, refusedHosts }));
      const place: WorkspacePlace = { requests, area, owner: ownerOf(slot) };
      const { config, log, dispatcher, llmUrl } = this.#deps;
      const session = { config, log, dispatcher, llmUrl: `${llmUrl}/v1`, host };
      return {
        slot,
        place,
        open: async (agent) => new NativeSession(session, agent),
        leaving: () => undefined,
        release: () => opened.disposeAsync(),
      };
    } catch (error) {
      await opened.disposeAsync();
      throw error;
    }
  }

  /** Every run gives its slot back itself. */
  async close(): Promise<void> {}

  #openHost(
    slot: Slot,
    place: { area: string; home: string; network: NetworkAccess | undefined; refusedHosts: Set<string> },
  ): Promise<SandboxToolHost> {
    const { sandboxes, config } = this.#deps;
    return SandboxToolHost.open({
      sandboxes,
      slot,
      ...place,
      fileBytes: config.quota.fileBytes,
      limits: programLimits(config),
    });
  }
}
