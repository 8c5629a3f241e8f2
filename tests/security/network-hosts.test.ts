import { stat } from "node:fs/promises";
import { createServer as createHttp } from "node:http";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type NetworkAccess,
  type NetworkOptions,
  networkAccess,
  systemResolver,
} from "#sandbox/network/index.ts";
import { parseHosts } from "#sandbox/network/rules.ts";
import type { Slot } from "#sandbox/slots.ts";
import { type DnsServer, startDns } from "#sandbox/testing/dns.ts";
import {
  openForTest,
  run,
  runNode,
  silent,
  specFor,
  type TestSandboxes,
  until,
} from "#sandbox/testing/harness.ts";
import { type Listener, listen } from "#sandbox/testing/network.ts";

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

/** Runs inside: takes each step, a URL to fetch or bytes for the proxy, and prints what came of it. */
const TAKE_STEPS = `
const net = require("net");
const raw = (bytes) => new Promise((resolve) => {
  let got = "";
  const s = net.connect(3128, "127.0.0.1", () => s.write(bytes, "latin1"));
  s.setEncoding("latin1").on("data", (d) => { got += d; });
  s.on("error", () => {}).on("close", () => resolve(got));
});
(async () => {
  const results = [];
  for (const step of JSON.parse(process.env.STEPS)) {
    results.push(step.url === undefined ? await raw(step.raw)
      : await fetch(step.url).then(async (r) => r.status + " " + (await r.text()), (e) => "failed: " + (e.cause ? e.cause.message : e.message)));
  }
  console.log(JSON.stringify(results));
})();
`;

interface Step {
  url?: string;
  raw?: string;
}

/** A slot with a way to the network. */
interface Online extends AsyncDisposable {
  slot: Slot;
  access: NetworkAccess;
  refusals: string[];
  take(steps: Step[]): Promise<string[]>;
}

async function goOnline(options: Partial<NetworkOptions> & { hosts: string[] }): Promise<Online> {
  const slot = await opened.sandboxes.slots.acquire();
  const refusals: string[] = [];
  const { hosts, ...rest } = options;
  const access = await networkAccess(slot, {
    rules: parseHosts(hosts),
    log: silent,
    onRefused: (host, port, reason) => refusals.push(`${host}:${port} ${reason}`),
    ...rest,
  });
  return {
    slot,
    access,
    refusals,
    async take(steps) {
      const env = { ...access.env, STEPS: JSON.stringify(steps) };
      const outcome = await runNode(opened.sandboxes, TAKE_STEPS, { slot, bridge: access.bridge, env });
      if (outcome.code !== 0) throw new Error(JSON.stringify(outcome));
      return JSON.parse(outcome.stdout);
    },
    async [Symbol.asyncDispose]() {
      await access.proxy.close();
      await slot.release();
    },
  };
}

const connectTo = (authority: string, then = ""): Step => ({
  raw: `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n${then}`,
});
const statusOf = (answer = "") => /^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? answer;

describe("with hosts, a program reaches these and nobody else", () => {
  let web: Listener;
  let evil: Listener;
  let dns: DnsServer;
  let table: Record<string, (time: number) => string[] | null>;
  const said: string[] = [];

  beforeEach(async () => {
    said.length = 0;
    web = await listen(
      undefined,
      createHttp((incoming, response) => {
        said.push(`${incoming.method} ${incoming.url} ${incoming.headers.host}`);
        if (incoming.url === "/away") response.writeHead(302, { location: `http://evil.test:${evil.port}/` });
        response.end("welcome");
      }),
    );
    evil = await listen(
      undefined,
      createHttp((_incoming, response) => response.end("caught")),
      EVERYWHERE,
    );
    table = { "web.test": () => ["127.0.0.1"], "evil.test": () => ["127.0.0.1"] };
    dns = await startDns((name, time) => table[name]?.(time));
  });
  afterEach(async () => {
    await web[Symbol.asyncDispose]();
    await evil[Symbol.asyncDispose]();
    await dns[Symbol.asyncDispose]();
  });

  /** As an operator who lets runs reach this machine, to whom names under .test are known. */
  const online = (options: Partial<NetworkOptions> & { hosts: string[] }) =>
    goOnline({ reach: "machine", resolver: systemResolver([dns.address]), ...options });

  it("[SB-run] by fetch and by CONNECT", async () => {
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const request = "GET /x HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n";
    const [fetched, connected] = await test.take([
      { url: `http://web.test:${web.port}/a?b` },
      connectTo(`web.test:${web.port}`, request),
    ]);
    expect(fetched).toBe("200 welcome");
    expect(connected).toMatch(
      /^HTTP\/1\.1 200 Connection established\r\n\r\nHTTP\/1\.1 200 OK\r\n.*welcome/s,
    );
    expect(said).toEqual([`GET /a?b web.test:${web.port}`, "GET /x web.test"]);
    expect(test.access.proxy.stats()).toMatchObject({ connections: 2, refused: 0 });
    expect(new Set(dns.asked)).toEqual(new Set(["web.test"]));
  });

  it("[SB-run] by programs that heed the usual variables", async () => {
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const { slot, access } = test;
    const fetch = (port: number, host: string) =>
      run(opened.sandboxes, ["git", "ls-remote", `http://${host}:${port}/project`], {
        slot,
        bridge: access.bridge,
        env: access.env,
      });
    await fetch(web.port, "web.test");
    expect((await fetch(evil.port, "evil.test")).stderr).toContain("403");
    expect(said[0]).toBe(`GET /project/info/refs?service=git-upload-pack web.test:${web.port}`);
    expect(evil.count()).toBe(0);
  });

  it("[SB-run] another host, another port, another spelling: not even its name is looked up", async () => {
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const { port } = web;
    const spellings = [`127.0.0.1:${port}`, `2130706433:${port}`, `0x7f000001:${port}`, `0177.0.0.1:${port}`];
    const others = [
      ...[
        `evil.test:${evil.port}`,
        `web.test:${evil.port}`,
        `sub.web.test:${port}`,
        `web.test.evil.test:${port}`,
      ],
      ...[...spellings, `[::1]:${port}`, `[::ffff:127.0.0.1]:${port}`, `localhost:${port}`],
      ...[`web.test@evil.test:${evil.port}`, "/run/gateway.sock", "127.0.0.1:3128", "localhost:3128"],
    ];
    const answers = await test.take([
      ...others.map((authority) => connectTo(authority)),
      { url: `http://evil.test:${evil.port}/` },
      { url: `http://127.0.0.1:${evil.port}/` },
      { raw: `GET http://evil.test:${evil.port}/ HTTP/1.1\r\nHost: web.test:${port}\r\n\r\n` },
    ]);
    const refused = answers.filter((answer) => /^HTTP\/1\.1 (400|403) |^403 |^failed: /.test(answer));
    expect(refused).toEqual(answers);
    expect([web.count(), evil.count(), dns.asked]).toEqual([0, 0, []]);
    expect(test.refusals).toContain(`evil.test:${evil.port} host`);
    expect(answers[0]).toContain(`evil.test:${evil.port}: This host is not among those the run may reach.`);
  });

  it("[SB-run] a redirect leads to nobody who is not allowed", async () => {
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const [answer] = await test.take([{ url: `http://web.test:${web.port}/away` }]);
    expect(answer).not.toContain("caught");
    expect([web.count(), evil.count()]).toEqual([1, 0]);
    expect(test.refusals).toEqual([`evil.test:${evil.port} host`]);
  });

  it("[SB-run] what is claimed in a tunnel or a Host header changes nothing: the host that was asked for gets it", async () => {
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const claim = `GET /claim HTTP/1.1\r\nHost: evil.test:${evil.port}\r\nConnection: close\r\n\r\n`;
    await test.take([
      connectTo(`web.test:${web.port}`, claim),
      { raw: `GET http://web.test:${web.port}/plain HTTP/1.1\r\nHost: evil.test:${evil.port}\r\n\r\n` },
    ]);
    // In a tunnel the text is the program's and, with TLS, sealed: it can only deceive the host it was allowed.
    expect(said).toEqual([`GET /claim evil.test:${evil.port}`, `GET /plain web.test:${web.port}`]);
    expect(evil.count()).toBe(0);
  });

  it("[SB-run] requests hidden in others reach nobody", async () => {
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const url = `http://web.test:${web.port}/`;
    const hidden = `GET http://evil.test:${evil.port}/ HTTP/1.1\r\nHost: web.test\r\n\r\n`;
    const tunnel = `CONNECT evil.test:${evil.port} HTTP/1.1\r\nHost: x\r\n\r\n`;
    const post = `POST ${url} HTTP/1.1\r\nHost: x\r\n`;
    await test.take([
      { raw: `${post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}` },
      { raw: `${post}Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}` },
      { raw: `${post}Transfer-Encoding: chunked\r\n\r\nzz\r\n${hidden}` },
      { raw: `GET ${url}%0d%0aHost:evil HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n${hidden}` },
      { raw: `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n${tunnel}` },
      { raw: `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n${hidden}` },
    ]);
    expect(evil.count()).toBe(0);
    expect(said.filter((line) => line.includes("evil"))).toEqual([]);
  });

  it("[SB-run] a name is asked for once, and what was checked is dialled", async () => {
    await using other = await listen(undefined, createServer(), "127.0.0.2", web.port);
    table["web.test"] = (time) => [time === 0 ? "127.0.0.1" : "127.0.0.2"];
    await using test = await online({ hosts: [`web.test:${web.port}`] });
    const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const [answer] = await test.take([connectTo(`web.test:${web.port}`, request)]);
    expect(answer).toContain("welcome");
    expect([web.count(), other.count()]).toEqual([1, 0]);
    // One question for each kind of address.
    expect(dns.asked).toEqual(["web.test", "web.test"]);
  });

  it("[SB-run] a name that leads to this machine, a private network or a metadata service is refused", async () => {
    const { port } = evil;
    const leads: Record<string, string[]> = {
      "loopback.test": ["127.0.0.1"],
      "loopback6.test": ["::1"],
      "any.test": ["0.0.0.0"],
      "mapped.test": ["::ffff:127.0.0.1"],
      "nat64.test": ["64:ff9b::7f00:1"],
      "mixed.test": ["192.0.2.1", "127.0.0.1"],
      "mixed6.test": ["192.0.2.1", "::1"],
      "private.test": ["10.0.0.1"],
      "metadata.test": ["169.254.169.254"],
      ...(ownAddress === undefined ? {} : { "own.test": [ownAddress] }),
    };
    for (const [name, addresses] of Object.entries(leads)) table[name] = () => addresses;
    // First where there is nobody, then, once trusted, here.
    table["rebound.test"] = (time) => [time === 0 ? "203.0.113.1" : "127.0.0.1"];
    const hosts = [...Object.keys(leads), "rebound.test"].map((name) => `${name}:${port}`);
    for (const reach of ["public", "private"] as const) {
      const names = Object.keys(leads).filter((name) => reach === "public" || name !== "private.test");
      await using test = await online({ hosts, reach });
      const answers = await test.take(names.map((name) => connectTo(`${name}:${port}`)));
      expect(answers.map(statusOf)).toEqual(names.map(() => "403"));
      expect(test.refusals).toEqual(names.map((name) => `${name}:${port} address`));
    }
    await using impatient = await online({ hosts, reach: "public", limits: { connectMs: 300 } });
    const [before] = await impatient.take([connectTo(`rebound.test:${port}`)]);
    expect(statusOf(before)).toMatch(/^50[24]$/);
    await using test = await online({ hosts, reach: "public" });
    expect((await test.take([connectTo(`rebound.test:${port}`)])).map(statusOf)).toEqual(["403"]);
    expect(evil.count()).toBe(0);
    await using far = await online({ hosts, reach: "machine" });
    expect((await far.take([connectTo(`metadata.test:${port}`)])).map(statusOf)).toEqual(["403"]);
  });

  it("[SB-run] a run's socket is not there for others, and gone with its run", async () => {
    await using mine = await online({ hosts: [`web.test:${web.port}`] });
    await using theirs = await online({ hosts: [] });
    const path = mine.access.proxy.socketPath;
    const seen = await stat(path);
    expect(seen.mode & 0o777).toBe(0o600);
    expect(seen.uid).toBe(mine.slot.uid ?? process.getuid?.());
    const script = `
      const net = require("net"), fs = require("fs");
      const found = fs.readdirSync("/run");
      const s = net.connect(${JSON.stringify(path)}, () => { s.write("CONNECT web.test:${web.port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"); });
      s.on("data", () => { console.log("in"); process.exit(); });
      s.on("error", (e) => console.log(JSON.stringify([e.code, found])));`;
    const { bridge, env } = theirs.access;
    const outcome = await runNode(opened.sandboxes, script, { slot: theirs.slot, bridge, env });
    expect(JSON.parse(outcome.stdout)).toEqual(["ENOENT", ["gateway.sock"]]);
    expect((await theirs.take([connectTo(`web.test:${web.port}`)])).map(statusOf)).toEqual(["403"]);
    expect(mine.access.proxy.stats()).toMatchObject({ connections: 0, refused: 0 });
    expect(web.count()).toBe(0);
    await theirs.slot.release();
    await expect(stat(theirs.access.proxy.socketPath)).rejects.toThrow(/ENOENT/);
  });

  it("[SB-run] a run's connections end with it, and with its proxy", async () => {
    await using echo = await listen((socket) => socket.pipe(socket));
    table["echo.test"] = () => ["127.0.0.1"];
    await using test = await online({ hosts: [`echo.test:${echo.port}`] });
    const hold = `
      const s = require("net").connect(3128, "127.0.0.1", () => s.write("CONNECT echo.test:${echo.port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"));
      s.resume().on("error", () => {}).on("close", () => console.log("closed")); setInterval(() => {}, 1000);`;
    const { bridge, env } = test.access;
    const mounts = [{ source: process.execPath, target: "/opt/node/node", mode: "ro" as const }];
    const spec = specFor(test.slot, ["/opt/node/node", "--input-type=commonjs", "-e", hold], {
      bridge,
      env,
      mounts,
    });
    const killed = await opened.sandboxes.start(spec);
    await until(() => echo.sockets.size === 1);
    await killed.kill();
    await until(() => echo.sockets.size === 0);

    const left = await opened.sandboxes.start(spec);
    await until(() => echo.sockets.size === 1);
    await test.access.proxy.close();
    await until(() => echo.sockets.size === 0);
    await new Promise((resolve) => left.stdout.once("data", resolve));
    await left.kill();
    await expect(stat(test.access.proxy.socketPath)).rejects.toThrow(/ENOENT/);
  });

  it("[SB-run] a hundred connections and names without an answer hold up nobody else", async () => {
    table["slow.test"] = () => null;
    await using hostile = await online({ hosts: [`web.test:${web.port}`, "slow.test"] });
    await using honest = await online({ hosts: [`web.test:${web.port}`] });
    const flood = `
      const net = require("net");
      for (let i = 0; i < 100; i++) {
        const s = net.connect("/run/gateway.sock", () => i % 2 ? s.write("CONNECT slow.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n") : s.write("CONNECT web.test"));
        s.on("error", () => {});
      }
      setInterval(() => {}, 1000);`;
    const { bridge, env } = hostile.access;
    const mounts = [{ source: process.execPath, target: "/opt/node/node", mode: "ro" as const }];
    const argv = ["/opt/node/node", "--input-type=commonjs", "-e", flood];
    const running = await opened.sandboxes.start(specFor(hostile.slot, argv, { bridge, env, mounts }));
    await until(() => hostile.access.proxy.stats().refused >= 36 && dns.asked.includes("slow.test"));
    expect(await honest.take([{ url: `http://web.test:${web.port}/` }])).toEqual(["200 welcome"]);
    // It was still at it.
    expect(running.pid).toBeGreaterThan(0);
    expect(opened.sandboxes.run.list()).toContain(running);
    expect(hostile.refusals).toContain(":0 connections");
    expect(web.count()).toBe(1);
    await running.kill();
  });
});
