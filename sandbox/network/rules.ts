import { isIP } from "node:net";
import { domainToASCII } from "node:url";
import { AppError } from "#schemas";

/** Entries of one list. */
export const MAX_HOSTS = 100;
/** RFC 1035, section 2.3.4: of a name, and of one of its parts. */
const MAX_NAME = 253;
const MAX_LABEL = 63;
/** Room for a name in umlauts, brackets and a port; what is longer is not looked at. */
const MAX_ENTRY = 512;
/** What a host without a port stands for: http and https. */
const WEB_PORTS = [80, 443] as const;
const EXAMPLES = "Write `example.org` (ports 80 and 443), `example.org:8443` or `*.example.org`.";

/** One host, or all names below one, and the ports that may be reached there. */
export interface HostRule {
  /** In lower case and ASCII, without a dot at the end; an IP address in its usual form, without brackets. */
  readonly host: string;
  /** Whether names below `host` are meant, and not `host` itself. */
  readonly below: boolean;
  readonly ports: readonly number[];
}

export interface Authority {
  /** As in HostRule. */
  host: string;
  port: number;
}

function refuse(entry: string, why: string, hint = EXAMPLES): never {
  const shown = JSON.stringify(entry.slice(0, MAX_NAME));
  throw new AppError("InvalidParams", `${shown} is no host to allow: ${why}.`, { hint });
}

/**
 * A host as rules know it; undefined for what is none. An address counts only in its usual form: names that
 * would be read as one (`0x7f.1`, `2130706433`, full-width digits) are nobody's honest spelling.
 */
function normalHost(text: string): string | undefined {
  if (text.startsWith("[")) {
    const address = text.slice(1, -1);
    return isIP(address) === 6 ? new URL(`http://[${address}]/`).hostname.slice(1, -1) : undefined;
  }
  if (isIP(text) === 4) return text;
  const name = domainToASCII(text).replace(/\.$/, "");
  if (name === "" || name.length > MAX_NAME || isIP(name) !== 0) return undefined;
  const labels = name.split(".");
  const good = labels.every(
    (label) => label.length <= MAX_LABEL && /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?$/.test(label),
  );
  return good ? name : undefined;
}

/**
 * Take `host:port` apart; undefined for anything else, among it user names, paths and percent signs. The one parser
 * for rules, CONNECT and URLs: what two parsers read differently is a way around both.
 */
export function parseAuthority(text: string, defaultPort?: number): Authority | undefined {
  if (text.length > MAX_ENTRY) return undefined;
  const found = /^(\[[0-9a-fA-F:.]+\]|[^:[\]@/?#\\%*\s]+)(?::(\d{1,5}))?$/.exec(text);
  const host = normalHost(found?.[1] ?? "");
  const port = found?.[2] === undefined ? defaultPort : Number(found[2]);
  if (host === undefined || port === undefined || port < 1 || port > 65_535) return undefined;
  return { host, port };
}

function parseHost(entry: string): HostRule {
  if (entry === "") refuse(entry, "it is empty");
  if (entry.length > MAX_ENTRY) refuse(entry, "it is too long");
  if (entry.includes("/")) refuse(entry, "it is a URL or a path", `Only the host. ${EXAMPLES}`);
  if (entry.includes("@")) refuse(entry, "it holds a user name", `Only the host. ${EXAMPLES}`);
  const below = entry.startsWith("*.");
  const name = below ? entry.slice(2) : entry;
  if (name.includes("*")) {
    refuse(
      entry,
      "a `*` stands only at the start, before a name",
      `All hosts at once cannot be allowed. ${EXAMPLES}`,
    );
  }
  const bare = isIP(name) === 6 ? `[${name}]` : name;
  const port = /:(\d+)$/.exec(bare)?.[1];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535))
    refuse(entry, "ports go from 1 to 65535");
  const found = parseAuthority(bare, WEB_PORTS[0]);
  if (found === undefined) refuse(entry, "it is neither a name nor an address in its usual form");
  if (below && isIP(found.host) !== 0) refuse(entry, "there is nothing below an address");
  if (below && !found.host.includes(".")) refuse(entry, "that is a whole top-level domain");
  return { host: found.host, below, ports: port === undefined ? WEB_PORTS : [found.port] };
}

/**
 * Read a list of hosts as people write it: `example.org` (ports 80 and 443), `example.org:8443`, `*.example.org` (the
 * names below, not itself), an IP address. Throws AppError InvalidParams naming the entry that is none.
 */
export function parseHosts(list: readonly string[]): HostRule[] {
  if (list.length > MAX_HOSTS) {
    throw new AppError("InvalidParams", `${list.length} hosts are too many.`, {
      hint: `Allow at most ${MAX_HOSTS}; \`*.example.org\` stands for all names below one.`,
    });
  }
  return list.map((entry) => parseHost(entry.trim()));
}

/** `host` and `port` as `parseAuthority` answers them. */
export function allows(rules: readonly HostRule[], host: string, port: number): boolean {
  return rules.some((rule) => {
    const named = rule.below ? host.endsWith(`.${rule.host}`) : host === rule.host;
    return named && rule.ports.includes(port);
  });
}

const covers = (rule: HostRule, wanted: HostRule, port: number): boolean =>
  wanted.below
    ? rule.below && `.${wanted.host}`.endsWith(`.${rule.host}`) && rule.ports.includes(port)
    : allows([rule], wanted.host, port);

/** As people write it. */
export function describeRule({ host, below, ports }: HostRule): string {
  const name = `${below ? "*." : ""}${host.includes(":") ? `[${host}]` : host}`;
  return ports.length === 1 ? `${name}:${ports[0]}` : name;
}

/**
 * What of `wanted` a run gets: hosts the operator allows. Of a host without a port, the ports that are open; when none
 * is, or the host is beyond the operator's list: AppError Forbidden naming it.
 */
export function intersect(operator: readonly HostRule[], wanted: readonly HostRule[]): HostRule[] {
  return wanted.map((rule) => {
    const ports = rule.ports.filter((port) => operator.some((each) => covers(each, rule, port)));
    if (ports.length > 0) return { ...rule, ports };
    const name = describeRule(rule);
    throw new AppError("Forbidden", `Sandboxes may not reach ${name}.`, {
      hint: "The operator's list CDS_SANDBOX_HOSTS says which hosts can be allowed.",
      host: name,
    });
  });
}
