import { afterAll, beforeAll, expect, it } from "vitest";
import { type DnsServer, startDns } from "../testing/dns.ts";
import { until } from "../testing/harness.ts";
import { systemResolver } from "./resolver.ts";

const TABLE: Record<string, string[] | null> = {
  "both.test": ["192.0.2.7", "192.0.2.8", "2001:db8::7"],
  "six.test": ["2001:db8::9"],
  "empty.test": [],
  "mute.test": null,
};

let dns: DnsServer;
beforeAll(async () => {
  dns = await startDns((name) => TABLE[name]);
});
afterAll(() => dns?.[Symbol.asyncDispose]());

it("knows all addresses of a name, of both kinds", async () => {
  const resolver = systemResolver([dns.address]);
  expect(await resolver.resolve("both.test")).toEqual(["192.0.2.7", "192.0.2.8", "2001:db8::7"]);
  expect(await resolver.resolve("six.test")).toEqual(["2001:db8::9"]);
  await expect(resolver.resolve("empty.test")).rejects.toMatchObject({ code: "ENODATA" });
  await expect(resolver.resolve("none.test")).rejects.toMatchObject({ code: "ENOTFOUND" });
});

it("believes the machine's hosts file before anybody else", async () => {
  const resolver = systemResolver([dns.address]);
  expect(await resolver.resolve("localhost")).toContain("127.0.0.1");
  expect(dns.asked).not.toContain("localhost");
});

it("gives up at once when it is told to", async () => {
  const resolver = systemResolver([dns.address]);
  const waiting = resolver.resolve("mute.test");
  const outcome = expect(waiting).rejects.toMatchObject({ code: "ECANCELLED" });
  await until(() => dns.asked.filter((name) => name === "mute.test").length === 2);
  resolver.cancel();
  await outcome;
});
