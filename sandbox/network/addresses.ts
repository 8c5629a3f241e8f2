import { BlockList, isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { isAllowedAddress } from "#platform/net/address.ts";

/**
 * How far allowed names may lead. `public`: to the internet only. `private`: also into private networks. `machine`:
 * also to this very machine, where services trust who comes from it; for a mirror that runs beside the server.
 * Link-local addresses and metadata services: never.
 */
export type Reach = "public" | "private" | "machine";

/** Networks of a company: none of them is this machine by itself, as loopback is. */
const COMPANY = new BlockList();
COMPANY.addSubnet("10.0.0.0", 8, "ipv4");
COMPANY.addSubnet("172.16.0.0", 12, "ipv4");
COMPANY.addSubnet("192.168.0.0", 16, "ipv4");
COMPANY.addSubnet("100.64.0.0", 10, "ipv4");
COMPANY.addSubnet("fc00::", 7, "ipv6");

function ownAddresses(): BlockList {
  const own = new BlockList();
  for (const { address, family } of Object.values(networkInterfaces()).flatMap((each) => each ?? [])) {
    own.addAddress(address, family === "IPv6" ? "ipv6" : "ipv4");
  }
  return own;
}

/** Whether a sandbox may be led to this address, the one that is really dialled. */
export function mayDial(address: string, reach: Reach): boolean {
  const family = isIP(address);
  if (family === 0 || address.includes("%") || !isAllowedAddress(address, reach !== "public")) return false;
  const type = family === 6 ? "ipv6" : "ipv4";
  if (reach === "machine") return true;
  if (ownAddresses().check(address, type)) return false;
  return isAllowedAddress(address, false) || COMPANY.check(address, type);
}
