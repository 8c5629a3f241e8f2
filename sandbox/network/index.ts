import { ownerOf, type Slot } from "../slots.ts";
import type { SandboxBridge } from "../types.ts";
import { NetworkProxy, type ProxyOptions } from "./proxy.ts";

export { systemResolver } from "./resolver.ts";

/** Of the proxy as programs inside see it. */
const PROXY_PORT = 3128;

export type NetworkOptions = Omit<ProxyOptions, "socketPath" | "owner">;

/** What a spec needs for its program to reach hosts: put `bridge` into it, and `env` into its environment. */
export interface NetworkAccess {
  readonly bridge: SandboxBridge;
  readonly env: Readonly<Record<string, string>>;
  /** To be closed when the program has ended. */
  readonly proxy: NetworkProxy;
}

/**
 * Open the network for one run in `slot`, to `options.rules` only. The caller closes the proxy when the run has ended.
 */
export async function networkAccess(slot: Slot, options: NetworkOptions): Promise<NetworkAccess> {
  const owner = ownerOf(slot);
  const proxy = await NetworkProxy.open({ ...options, socketPath: slot.makeSocketPath(), owner });
  const url = `http://127.0.0.1:${PROXY_PORT}`;
  const local = "localhost,127.0.0.1,::1";
  return {
    bridge: { socketPath: proxy.socketPath, port: PROXY_PORT },
    env: {
      // Some programs know the one spelling, some the other. No ALL_PROXY: it would catch what is no HTTP.
      HTTP_PROXY: url,
      http_proxy: url,
      HTTPS_PROXY: url,
      https_proxy: url,
      NO_PROXY: local,
      no_proxy: local,
      // Node's fetch and http heed the others only with it.
      NODE_USE_ENV_PROXY: "1",
    },
    proxy,
  };
}
