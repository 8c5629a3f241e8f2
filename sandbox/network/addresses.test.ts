import { networkInterfaces } from "node:os";
import { expect, it } from "vitest";
import { mayDial } from "./addresses.ts";

const PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"];
const COMPANY = ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.1.2.3"];
const MACHINE = [
  "127.0.0.1",
  "127.9.9.9",
  "0.0.0.0",
  "::1",
  "::",
  "::ffff:127.0.0.1",
  "64:ff9b::7f00:1",
  "2002:7f00:1::",
];
const NEVER = [
  "169.254.169.254",
  "::ffff:169.254.169.254",
  "64:ff9b::a9fe:a9fe",
  "fd00:ec2::254",
  "fe80::1",
  "fe80::1%eth0",
  "100.100.100.200",
  "224.0.0.1",
  "255.255.255.255",
  "64:ff9b:1::7f00:1",
  "2001:0:1::1",
  "fec0::1",
  "example.org",
  "127.1",
  "",
];

const reached = (addresses: string[], reach: "public" | "private" | "machine") =>
  addresses.filter((address) => mayDial(address, reach));

it("names lead to the internet, and as far as the operator says", () => {
  expect(reached([...PUBLIC, ...COMPANY, ...MACHINE, ...NEVER], "public")).toEqual(PUBLIC);
  expect(reached([...PUBLIC, ...COMPANY, ...NEVER], "private")).toEqual([...PUBLIC, ...COMPANY]);
  expect(reached(["127.0.0.1", "::1", ...NEVER], "machine")).toEqual(["127.0.0.1", "::1"]);
});

it("private networks do not mean this machine, by whichever of its addresses", () => {
  const own = Object.values(networkInterfaces()).flatMap((each) =>
    (each ?? []).map(({ address }) => address),
  );
  expect(own.length).toBeGreaterThan(0);
  expect(reached([...own, ...MACHINE], "private")).toEqual([]);
  const mapped = own.filter((address) => address.includes(".")).map((address) => `::ffff:${address}`);
  expect(reached(mapped, "private")).toEqual([]);
});
