import { Resolver as Queries } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { isIP } from "node:net";

/** Of one question to one server, and how often it is asked. */
const QUERY_MS = 2_500;
const TRIES = 2;

/** Names to addresses, for one run. */
export interface Resolver {
  /** All addresses of a name, at least one. Throws the system's error when there is none. */
  resolve(host: string): Promise<string[]>;
  /** Give up every question that is open. */
  cancel(): void;
}

/** `hosts` files (hosts(5)): lines of an address and its names. */
function parseHostsFile(text: string): Map<string, string[]> {
  const addresses = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const [address = "", ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    if (isIP(address) === 0) continue;
    for (const name of names) {
      const known = addresses.get(name.toLowerCase()) ?? [];
      addresses.set(name.toLowerCase(), [...known, address]);
    }
  }
  return addresses;
}

/**
 * The machine's `hosts` file and DNS servers, as they are when the run begins. Not getaddrinfo: that keeps one of the
 * process's four threads for file work until an answer comes, and a run whose names answer slowly would hold up
 * everybody's files; nor can it be cancelled. Other sources of nsswitch.conf are not asked. `servers` (`ip:port`)
 * stand in for the machine's.
 */
export function systemResolver(servers?: readonly string[]): Resolver {
  const queries = new Queries({ timeout: QUERY_MS, tries: TRIES });
  if (servers !== undefined) queries.setServers(servers);
  let hosts: Promise<Map<string, string[]>> | undefined;
  return {
    async resolve(host) {
      hosts ??= readFile("/etc/hosts", "utf8").then(parseHostsFile, () => new Map());
      const listed = (await hosts).get(host);
      if (listed !== undefined) return listed;
      const [four, six] = await Promise.allSettled([queries.resolve4(host), queries.resolve6(host)]);
      const found = [four, six].flatMap((each) => (each.status === "fulfilled" ? each.value : []));
      if (found.length === 0 && four.status === "rejected") throw four.reason;
      return found;
    },
    cancel: () => queries.cancel(),
  };
}
