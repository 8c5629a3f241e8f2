import { isIP, connect as netConnect, type Socket } from "node:net";
import { orAborted } from "#platform/waiting.ts";
import { mayDial, type Reach } from "./addresses.ts";
import type { RefusalReason } from "./limits.ts";
import { Refusal } from "./refusal.ts";
import type { Resolver } from "./resolver.ts";

/** ms until the next of several addresses is tried as well. */
const NEXT_ADDRESS_MS = 2_000;
/** Of one name; more are no honest answer. */
const MAX_ADDRESSES = 64;

export interface DialOptions {
  resolver: Resolver;
  reach: Reach;
  connectMs: number;
  /** Whoever asked has gone, or the proxy closes. */
  signal: AbortSignal;
}

/** Every address a host has, all of them allowed: a mixed answer is an attack. */
async function addressesOf(
  host: string,
  { resolver, reach }: DialOptions,
): Promise<string[] | RefusalReason> {
  const addresses = isIP(host) === 0 ? await resolver.resolve(host).catch(() => []) : [host];
  if (addresses.length === 0) return "unresolved";
  if (addresses.length > MAX_ADDRESSES) return "address";
  return addresses.every((address) => mayDial(address, reach)) ? addresses : "address";
}

function open(host: string, port: number, addresses: string[], signal: AbortSignal): Promise<Socket> {
  const known = addresses.map((address) => ({ address, family: isIP(address) }));
  const socket = netConnect({
    host,
    port,
    allowHalfOpen: true,
    noDelay: true,
    // What was checked is what is dialled: the name is not looked up again.
    lookup: (_host, _options, callback) => callback(null, known),
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: NEXT_ADDRESS_MS,
  });
  const connected = new Promise<Socket>((resolve, reject) => {
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("closed before it was connected")));
  });
  const onAbort = () => socket.destroy();
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  const forget = () => signal.removeEventListener("abort", onAbort);
  connected.then(forget, forget);
  return connected;
}

/**
 * Connect to an allowed host: resolve its name, check every address, dial one of these. Throws Refusal; nothing is
 * left open then.
 */
export async function dial(host: string, port: number, options: DialOptions): Promise<Socket> {
  const late = AbortSignal.timeout(options.connectMs);
  const signal = AbortSignal.any([options.signal, late]);
  const failed = (reason: RefusalReason) => new Refusal(late.aborted ? "timeout" : reason, host, port);
  const addresses = await orAborted(addressesOf(host, options), signal).catch(() => "unresolved" as const);
  if (typeof addresses === "string") throw failed(addresses);
  return open(host, port, addresses, signal).catch(() => {
    throw failed("unreachable");
  });
}
