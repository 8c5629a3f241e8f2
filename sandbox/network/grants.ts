import { AppError } from "#schemas";
import type { Slot } from "../slots.ts";
import type { SandboxLog } from "../types.ts";
import type { Reach } from "./addresses.ts";
import { type NetworkAccess, networkAccess } from "./index.ts";
import { type HostRule, intersect, parseHosts } from "./rules.ts";

/** What the operator allows. */
export interface NetworkSettings {
  readonly hosts: readonly string[];
  readonly reach: Reach;
}

/** What a run may reach: nothing, or some of what the operator allows. */
export class NetworkGrants {
  readonly #allowed: HostRule[];
  readonly #reach: Reach;
  readonly #log: SandboxLog;
  /** As the operator wrote them. */
  readonly hosts: readonly string[];

  /** @throws AppError InvalidParams for hosts in the settings that are none. */
  constructor({ hosts, reach }: NetworkSettings, log: SandboxLog) {
    this.hosts = hosts;
    this.#allowed = parseHosts(hosts);
    this.#reach = reach;
    this.#log = log;
  }

  /**
   * Which rules a request comes to; null for no network.
   * @throws AppError InvalidParams for what is no host, Forbidden for one that the operator does not allow.
   */
  rules(wanted: boolean | readonly string[]): HostRule[] | null {
    if (wanted === false || (wanted !== true && wanted.length === 0)) return null;
    if (this.#allowed.length === 0) {
      throw new AppError("Forbidden", "Programs have no network on this server.", {
        hint: "The operator can name hosts in CDS_SANDBOX_HOSTS.",
      });
    }
    return wanted === true ? this.#allowed : intersect(this.#allowed, parseHosts(wanted));
  }

  /** Open the way for one run. The caller closes the proxy. */
  open(slot: Slot, rules: readonly HostRule[], onRefused: (host: string) => void): Promise<NetworkAccess> {
    return networkAccess(slot, {
      rules,
      reach: this.#reach,
      log: this.#log,
      onRefused: (host, port) => {
        if (host !== "") onRefused(`${host}:${port}`);
      },
    });
  }
}
