import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";

/** Link-local and the metadata services of clouds: nobody's provider, and full of credentials. */
const NEVER = new BlockList();
NEVER.addSubnet("169.254.0.0", 16, "ipv4");
NEVER.addAddress("100.100.100.200", "ipv4");
NEVER.addAddress("168.63.129.16", "ipv4");
NEVER.addAddress("192.0.0.192", "ipv4");
NEVER.addSubnet("fe80::", 10, "ipv6");
NEVER.addAddress("fd00:ec2::254", "ipv6");
NEVER.addAddress("fd20:ce::254", "ipv6");
NEVER.addSubnet("ff00::", 8, "ipv6");
NEVER.addSubnet("224.0.0.0", 4, "ipv4");
NEVER.addAddress("255.255.255.255", "ipv4");

// Where an IPv4 address, or an old kind of private one, may hide: local NAT64 (RFC 8215), Teredo (RFC 4380), site-local
// (RFC 3879), the 6to4 relays of old (RFC 7526).
NEVER.addSubnet("64:ff9b:1::", 48, "ipv6");
NEVER.addSubnet("2001::", 32, "ipv6");
NEVER.addSubnet("fec0::", 10, "ipv6");
NEVER.addSubnet("192.88.99.0", 24, "ipv4");

const PRIVATE = new BlockList();
for (const [net, bits] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["240.0.0.0", 4],
] as const) {
  PRIVATE.addSubnet(net, bits, "ipv4");
}
PRIVATE.addAddress("::", "ipv6");
PRIVATE.addAddress("::1", "ipv6");
PRIVATE.addSubnet("fc00::", 7, "ipv6");

/** Raised instead of connecting. The address is not told: it may be what the caller wants to learn. */
export class RefusedAddress extends Error {
  readonly code = "CDS_REFUSED_ADDRESS";
  constructor() {
    super("the provider's address is not allowed");
    this.name = "RefusedAddress";
  }
}

/** Whether one may connect to an IP address: the one that is really used, not the name it came from. */
export function isAllowedAddress(address: string, allowPrivate: boolean): boolean {
  const plain = address.replace(/^\[|\]$/g, "").replace(/%.*$/, "");
  const family = isIP(plain);
  if (family === 0) return false;
  const inner = family === 6 ? embeddedIpv4(plain) : undefined;
  if (inner !== undefined) return isAllowedAddress(inner, allowPrivate);
  const type = family === 6 ? "ipv6" : "ipv4";
  return !NEVER.check(plain, type) && (allowPrivate || !PRIVATE.check(plain, type));
}

/** The IPv4 address within an IPv6 one that routers or kernels translate (mapped, compatible, NAT64, 6to4). */
function embeddedIpv4(address: string): string | undefined {
  // The URL parser writes any notation of an IPv6 address in one way, with the last four bytes in hex.
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const words = expand(canonical);
  const [high, low] = words.slice(6);
  const head = words.slice(0, 6).join(":");
  if (["0:0:0:0:0:65535", "0:0:0:0:0:0", "0:0:0:0:65535:0", "100:65435:0:0:0:0"].includes(head)) {
    return (high ?? 0) === 0 && (low ?? 0) <= 1 ? undefined : dotted(high, low);
  }
  return words[0] === 0x2002 ? dotted(words[1], words[2]) : undefined;
}

function expand(address: string): number[] {
  const [left = "", right] = address.split("::");
  const parse = (part: string) =>
    part === "" ? [] : part.split(":").map((word) => Number.parseInt(word, 16));
  const start = parse(left);
  const end = right === undefined ? [] : parse(right);
  return [...start, ...Array.from({ length: 8 - start.length - end.length }, () => 0), ...end];
}

function dotted(high = 0, low = 0): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

/** A `lookup` for net.connect that fails when any address of a name is refused (a mixed answer is an attack). */
export function checkedLookup(allowPrivate: boolean): LookupFunction {
  return (hostname, options, callback) => {
    const all: LookupOptions & { all: true } = { ...options, all: true };
    dnsLookup(hostname, all, (error, addresses: LookupAddress[]) => {
      const [first] = addresses ?? [];
      if (error !== null || first === undefined) return callback(error ?? new RefusedAddress(), "", 0);
      if (addresses.some(({ address }) => !isAllowedAddress(address, allowPrivate))) {
        return callback(new RefusedAddress(), "", 0);
      }
      if (options.all === true) return callback(null, addresses);
      callback(null, first.address, first.family);
    });
  };
}
