import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allows, describeRule, intersect, MAX_HOSTS, parseAuthority, parseHosts } from "./rules.ts";

describe("hosts as people write them", () => {
  it.each([
    ["example.org", "example.org", false, [80, 443]],
    ["Example.ORG.", "example.org", false, [80, 443]],
    [" example.org:8443 ", "example.org", false, [8443]],
    ["*.example.org", "example.org", true, [80, 443]],
    ["*.example.org:443", "example.org", true, [443]],
    ["müller.de", "xn--mller-kva.de", false, [80, 443]],
    ["MÜLLER.de:1", "xn--mller-kva.de", false, [1]],
    ["localhost:65535", "localhost", false, [65_535]],
    ["93.184.215.14", "93.184.215.14", false, [80, 443]],
    ["[2001:DB8::1]:443", "2001:db8::1", false, [443]],
    ["2001:db8:0:0::1", "2001:db8::1", false, [80, 443]],
    ["a_b.example.org", "a_b.example.org", false, [80, 443]],
  ])("%s", (text, host, below, ports) => {
    expect(parseHosts([text])).toEqual([{ host, below, ports }]);
  });

  it.each([
    "",
    "*",
    "*:443",
    "**.example.org",
    "*.*.example.org",
    "a.*.example.org",
    "*example.org",
    "*.org",
    "*.1.2.3.4",
    "https://example.org",
    "example.org/path",
    "example.org?x",
    "example.org#x",
    "user@example.org",
    "user:pass@example.org:443",
    "example.org:0",
    "example.org:65536",
    "example.org:99999999",
    "example.org:",
    "example.org:http",
    "example.org:443:443",
    "example..org",
    ".example.org",
    "example.org..",
    "exam ple.org",
    "exam\0ple.org",
    "example.org\r\nX: y",
    "ex%61mple.org",
    "-example.org",
    "example-.org",
    `${"a".repeat(64)}.org`,
    `${"abcdefg.".repeat(32)}org`,
    "x".repeat(10_000),
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "127.1",
    "127.0.0.01",
    "１２７.0.0.1",
    "999.1.1.1",
    "[::1",
    "[fe80::1%eth0]",
    "[127.0.0.1]",
  ])("refuses %j with a hint", (text) => {
    expect(() => parseHosts(["example.org", text])).toThrow(
      expect.objectContaining({
        code: "InvalidParams",
        details: { hint: expect.stringContaining("example.org") },
      }),
    );
  });

  it("refuses more than the limit", () => {
    const list = Array.from({ length: MAX_HOSTS + 1 }, (_, index) => `h${index}.example.org`);
    expect(() => parseHosts(list)).toThrow(expect.objectContaining({ code: "InvalidParams" }));
    expect(parseHosts(list.slice(1))).toHaveLength(MAX_HOSTS);
  });

  it("are written out again as they were read", () => {
    const texts = ["example.org", "*.example.org:8443", "[2001:db8::1]:443", "1.2.3.4"];
    expect(parseHosts(texts).map(describeRule)).toEqual(texts);
  });
});

describe("what rules allow", () => {
  const rules = parseHosts(["example.org", "*.example.net:443", "example.com:8443", "1.2.3.4"]);
  const ask = (text: string) => {
    const authority = parseAuthority(text);
    return authority !== undefined && allows(rules, authority.host, authority.port);
  };

  it.each([
    "example.org:80",
    "EXAMPLE.org.:443",
    "a.example.net:443",
    "a.b.example.net:443",
    "example.com:8443",
    "1.2.3.4:443",
  ])("%s", (text) => expect(ask(text)).toBe(true));

  it.each([
    "example.org:22",
    "www.example.org:443",
    "example.net:443",
    "aexample.net:443",
    "a.example.net:80",
    "example.com:443",
    "example.org",
    "evil.org:443",
    "example.org.evil.org:443",
    "example.org@evil.org:443",
    "evil.org#example.org:443",
    "evil.org%00example.org:443",
    "*.example.net:443",
    "1.2.3.5:443",
    "16909060:443",
    "0x01020304:443",
    "[::ffff:1.2.3.4]:443",
    "1.2.3.4",
    "/run/gateway.sock",
    "",
  ])("not %j", (text) => expect(ask(text)).toBe(false));

  it("nothing at all without rules, whatever is asked", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.integer({ min: 0, max: 70_000 }), (text, port) => {
        const authority = parseAuthority(`${text}:${port}`);
        expect(authority !== undefined && allows([], authority.host, authority.port)).toBe(false);
      }),
    );
  });

  it("a name read once reads the same again", () => {
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.string({ unit: "grapheme", maxLength: 20 })), (text) => {
        const first = parseAuthority(text, 80);
        if (first !== undefined && !first.host.includes(":"))
          expect(parseAuthority(first.host, 80)).toEqual(first);
      }),
    );
  });
});

describe("a run gets what the operator allows", () => {
  const operator = parseHosts(["example.org:443", "*.example.net", "10.0.0.1:8080"]);
  const get = (...wanted: string[]) => intersect(operator, parseHosts(wanted)).map(describeRule);

  it("and no more", () => {
    expect(
      get("example.org", "a.example.net", "*.b.example.net:443", "*.example.net", "10.0.0.1:8080"),
    ).toEqual(["example.org:443", "a.example.net", "*.b.example.net:443", "*.example.net", "10.0.0.1:8080"]);
    expect(get()).toEqual([]);
  });

  it.each([
    "example.org:80",
    "*.example.org",
    "example.net",
    "*.ple.net",
    "a.example.net:22",
    "10.0.0.1",
    "evil.org",
  ])("not %s", (host) => {
    expect(() => get("example.org", host)).toThrow(
      expect.objectContaining({ code: "Forbidden", message: expect.stringContaining(host) }),
    );
  });
});
