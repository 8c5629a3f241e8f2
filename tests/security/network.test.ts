import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openForTest, run, type TestSandboxes, until } from "#sandbox/testing/harness.ts";
import { listen } from "#sandbox/testing/network.ts";

/** Every attack is judged on the other side too: by a listener that counts who came. */
let opened: TestSandboxes;
beforeAll(async () => {
  opened = await openForTest();
});
afterAll(() => opened?.[Symbol.asyncDispose]());

/** An address of this machine that is not loopback, where it has one. */
const ownAddress = Object.values(networkInterfaces())
  .flatMap((each) => each ?? [])
  .find(({ internal, family }) => !internal && family === "IPv4")?.address;

const hasIpv6 = Object.values(networkInterfaces()).some((each) =>
  each?.some(({ family }) => family === "IPv6"),
);
/** All of this machine's addresses. */
const EVERYWHERE = hasIpv6 ? "::" : "0.0.0.0";

/**
 * Tries one way out after the other, and prints `name outcome` for each. In Perl, which makes sockets of any family;
 * numbers are those of the kernel's headers.
 */
const WAYS_OUT = `
use strict; use Socket; $| = 1;
my ($tcp, $udp, $six, $abstract, $own) = @ARGV;
sub say_it { print "$_[0] ", ($_[1] ? "done" : 0 + $!), "\\n" }
sub try_connect { my ($name, $family, $address) = @_; my $s;
  local $SIG{ALRM} = sub { die }; eval { alarm 5;
    say_it($name, socket($s, $family, SOCK_STREAM, 0) && connect($s, $address) && syswrite($s, "x")); alarm 0 }; print "$name silence\\n" if $@; }
sub try_send { my ($name, $address, $bytes) = @_; my $s;
  say_it($name, socket($s, AF_INET, SOCK_DGRAM, 0) && send($s, $bytes, 0, $address)); }
sub try_socket { my ($name, @kind) = @_; say_it($name, socket(my $s, $kind[0], $kind[1], $kind[2])); }
my $query = pack("n6", 1, 256, 1, 0, 0, 0) . "\\6secret\\4test\\0" . pack("n2", 1, 1);
try_connect("tcp-loopback", AF_INET, pack_sockaddr_in($tcp, inet_aton("127.0.0.1")));
try_connect("tcp-own-address", AF_INET, pack_sockaddr_in($tcp, inet_aton($own)));
try_connect("tcp-internet", AF_INET, pack_sockaddr_in(80, inet_aton("192.0.2.1"))) if $six;
try_connect("tcp-metadata", AF_INET, pack_sockaddr_in(80, inet_aton("169.254.169.254"))) if $six;
try_connect("tcp6-loopback", AF_INET6, Socket::pack_sockaddr_in6($six || 1, Socket::inet_pton(AF_INET6, "::1"))) if $six;
try_connect("tcp6-mapped", AF_INET6, Socket::pack_sockaddr_in6($tcp, Socket::inet_pton(AF_INET6, "::ffff:$own")));
try_connect("abstract", AF_UNIX, pack("S", AF_UNIX) . "\\0" . $abstract);
try_send("udp-own-address", pack_sockaddr_in($udp, inet_aton($own)), $query);
try_send("udp-loopback", pack_sockaddr_in($udp, inet_aton("127.0.0.1")), $query);
try_send("udp-internet", pack_sockaddr_in(53, inet_aton("192.0.2.1")), $query) if $six;
exit unless $six;
say_it("name", gethostbyname("secret.test"));
try_socket("raw-icmp", AF_INET, SOCK_RAW, 1);
try_socket("raw-any", AF_INET, SOCK_RAW, 255);
try_socket("raw6", AF_INET6, SOCK_RAW, 58);
try_socket("ping", AF_INET, SOCK_DGRAM, 1);
try_socket("packet", 17, SOCK_RAW, 0x0300);
try_socket("packet-dgram", 17, SOCK_DGRAM, 0x0300);
try_socket("vsock", 40, SOCK_STREAM, 0);
try_socket("alg", 38, 5, 0);
try_socket("key", 15, SOCK_RAW, 2);
try_socket("bluetooth", 31, SOCK_RAW, 1);
try_socket("xdp", 44, SOCK_RAW, 0);
# RTM_NEWLINK: a network device "out0" of the kind "dummy"; the answer's error stands after its header.
sub attribute { my ($type, $bytes) = @_; my $n = 4 + length $bytes; pack("S2", $n, $type) . $bytes . "\\0" x (-$n % 4) }
my $body = pack("x16") . attribute(3, "out0\\0") . attribute(18, attribute(1, "dummy"));
socket(my $link, 16, SOCK_RAW, 0) or die;
send($link, pack("LSSLL", 16 + length $body, 16, 0x605, 1, 0) . $body, 0, pack("SSLL", 16, 0, 0, 0));
recv($link, my $reply, 4096, 0);
print "new-device ", unpack("x16l", $reply), "\\n";
opendir(my $devices, "/proc/sys/net/ipv4/conf"); print "devices ", join(",", sort grep { !/^(\\.|all$|default$)/ } readdir $devices), "\\n";
open(my $routes, "/proc/net/route"); my @routes = <$routes>; print "routes ", @routes - 1, "\\n";
`;

const ENETUNREACH = "101";
const ECONNREFUSED = "111";
const EAFNOSUPPORT = "97";
const DENIED = ["1", "13", ...(hasIpv6 ? [] : [EAFNOSUPPORT])];

describe("without hosts, a program reaches nobody", () => {
  const outcomes = (stdout: string) =>
    Object.fromEntries(
      stdout
        .trim()
        .split("\n")
        .map((line) => line.split(" ")),
    );

  it("[SB-run] not by TCP, UDP, DNS, IPv6, abstract sockets, raw packets, VSOCK or a device of its own", async () => {
    await using six = await listen(undefined, createServer(), hasIpv6 ? "::1" : "127.0.0.1");
    await using tcp = await listen(undefined, createServer(), EVERYWHERE);
    const abstract = `cds-test-${process.pid}-${Math.random()}`;
    let met = 0;
    const unix = createServer((socket) => {
      met += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => unix.listen(`\0${abstract}`, resolve));
    const udp = createSocket("udp4");
    const heard: string[] = [];
    udp.on("message", (message) => heard.push(message.toString("latin1")));
    await new Promise<void>((resolve) => udp.bind(0, "0.0.0.0", resolve));
    const own = ownAddress ?? "127.0.0.1";
    const ports = (withSix: boolean) => [tcp.port, udp.address().port, withSix ? six.port : 0].map(String);
    try {
      const inside = await run(opened.sandboxes, ["perl", "-e", WAYS_OUT, ...ports(true), abstract, own]);
      expect(inside.stderr).toBe("");
      const found = outcomes(inside.stdout);
      const { "tcp-own-address": tcpOwn, "udp-own-address": udpOwn, "tcp6-mapped": mapped, ...rest } = found;
      const unreachable = ownAddress === undefined ? ECONNREFUSED : ENETUNREACH;
      expect([tcpOwn, mapped]).toEqual([unreachable, hasIpv6 ? unreachable : EAFNOSUPPORT]);
      expect(udpOwn).toBe(ownAddress === undefined ? "done" : ENETUNREACH);
      const denied = Object.fromEntries(
        ["raw-icmp", "raw-any", "raw6", "ping"].map((name) => [name, rest[name]]),
      );
      expect(Object.values(denied).filter((outcome) => !DENIED.includes(outcome ?? ""))).toEqual([]);
      expect({ ...rest, ...Object.fromEntries(Object.keys(denied).map((name) => [name, "denied"])) }).toEqual(
        {
          "tcp-loopback": ECONNREFUSED,
          "tcp-internet": ENETUNREACH,
          "tcp-metadata": ENETUNREACH,
          "tcp6-loopback": hasIpv6 ? ECONNREFUSED : EAFNOSUPPORT,
          abstract: ECONNREFUSED,
          // To its own loopback, where nobody listens.
          "udp-loopback": "done",
          "udp-internet": ENETUNREACH,
          name: expect.not.stringContaining("done"),
          "raw-icmp": "denied",
          "raw-any": "denied",
          raw6: "denied",
          ping: "denied",
          packet: EAFNOSUPPORT,
          "packet-dgram": EAFNOSUPPORT,
          vsock: EAFNOSUPPORT,
          alg: EAFNOSUPPORT,
          key: EAFNOSUPPORT,
          bluetooth: EAFNOSUPPORT,
          xdp: EAFNOSUPPORT,
          "new-device": "-1",
          devices: "lo",
          routes: "0",
        },
      );
      expect({ tcp: tcp.count(), six: six.count(), heard, met }).toEqual({
        tcp: 0,
        six: 0,
        heard: [],
        met: 0,
      });

      // The same program outside gets through: what counts them works.
      await promisify(execFile)("perl", ["-e", WAYS_OUT, ...ports(false), abstract, own], {
        timeout: 30_000,
      });
      await until(() => tcp.count() === (hasIpv6 ? 3 : 2) && met === 1 && heard.length === 2);
      expect(heard[0]).toContain("secret");
    } finally {
      unix.close();
      udp.close();
    }
  });
});
