/**
 * What a client address counts as where requests are limited per address: an IPv6 host has its whole /64 to call
 * from, so that one counts; an IPv4 address is the same however it is written.
 */
export function addressKey(address: string): string {
  if (!address.includes(":")) return address;
  const plain = address.split("%", 1)[0] ?? "";
  const mapped = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/i.exec(plain)?.[1];
  if (mapped !== undefined) return mapped;
  const [left = "", right = ""] = plain.toLowerCase().split("::", 2);
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const [head, tail] = [groups(left), groups(right)];
  const zeros = plain.includes("::") ? Math.max(0, 8 - head.length - tail.length) : 0;
  const all = [...head, ...Array.from({ length: zeros }, () => "0"), ...tail];
  const network = all.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, ""));
  return `${network.join(":")}::/64`;
}
