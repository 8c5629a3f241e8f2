import { buildConnector } from "undici";
import { checkedLookup, isAllowedAddress, RefusedAddress } from "#platform/net/address.ts";

/**
 * Connects for undici, but only to an address that is allowed: it is checked when the connection is made, so that a
 * name cannot lead elsewhere after the check. Fails with RefusedAddress. `timeout` in ms.
 */
export function connector(timeout: number, allowPrivate: boolean): buildConnector.connector {
  const connect = buildConnector({
    timeout,
    lookup: checkedLookup(allowPrivate),
    allowH2: false,
    // net.connect's options; the type wants a port, which comes with each call.
  } as buildConnector.BuildOptions);
  return (options, callback) => {
    const host = options.hostname.replace(/^\[|\]$/g, "");
    // A literal address is never looked up, so that the check of the lookup would not see it.
    if (/^[\d.]+$|:/.test(host) && !isAllowedAddress(host, allowPrivate)) {
      callback(new RefusedAddress(), null);
      return;
    }
    connect(options, callback);
  };
}
