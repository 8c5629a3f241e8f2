import { describe, expect, it } from "vitest";
import { addressKey } from "./address-key.ts";

describe("the key of a client address", () => {
  it("is one for all addresses of an IPv6 network, however they are written", () => {
    const same = [
      "2001:db8:0:1::1",
      "2001:db8:0:1:ffff:ffff:ffff:ffff",
      "2001:0DB8:0000:0001::2",
      "2001:db8:0:1::",
    ];
    expect(new Set(same.map(addressKey))).toEqual(new Set(["2001:db8:0:1::/64"]));
    expect(addressKey("2001:db8:0:2::1")).not.toBe(addressKey("2001:db8:0:1::1"));
    expect(addressKey("2001:db8::1")).toBe("2001:db8:0:0::/64");
    expect(addressKey("fe80::1%eth0")).toBe(addressKey("fe80::2"));
    expect(addressKey("::1")).toBe("0:0:0:0::/64");
  });

  it("is the address itself for IPv4", () => {
    expect(addressKey("192.0.2.7")).toBe("192.0.2.7");
    expect(addressKey("::ffff:192.0.2.7")).toBe("192.0.2.7");
    expect(addressKey("::FFFF:192.0.2.8")).toBe("192.0.2.8");
  });
});
