import { once } from "node:events";
import { stat } from "node:fs/promises";
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../testing/harness.ts";
import { type Listener, listen, names, openTestProxy, readAll, type TestProxy } from "../testing/network.ts";
import type { NetworkLimits } from "./limits.ts";
import { parseHosts } from "./rules.ts";

const LOCAL = [["127.0.0.1"]];

describe("a tunnel", () => {
  let echo: Listener;
  beforeAll(async () => {
    echo = await listen((socket) => socket.pipe(socket));
  });
  afterAll(() => echo?.[Symbol.asyncDispose]());

  const open = (limits: Partial<NetworkLimits> = {}) =>
    openTestProxy({
      rules: parseHosts([`echo.test:${echo.port}`]),
      resolver: names({ "echo.test": LOCAL }),
      reach: "machine",
      limits,
    });
  const connect = () => `CONNECT echo.test:${echo.port} HTTP/1.1\r\nHost: echo.test\r\n\r\n`;
  const OK = "HTTP/1.1 200 Connection established\r\n\r\n";

  it("passes bytes both ways, also those sent along with the request, and each side's end by itself", async () => {
    await using test = await open();
    const socket = test.connect();
    socket.end(`${connect()}first`);
    expect(await readAll(socket)).toBe(`${OK}first`);
    expect(test.proxy.stats()).toEqual({ connections: 1, bytesIn: 5, bytesOut: 5, refused: 0 });
    await until(() => echo.sockets.size === 0);
  });

  it("carries megabytes unchanged", async () => {
    await using test = await open();
    const socket = test.connect();
    const sent = Buffer.alloc(8 << 20, "0123456789abcdef\n").toString("latin1");
    socket.write(connect());
    socket.end(sent, "latin1");
    expect((await readAll(socket)) === OK + sent).toBe(true);
  });

  it("does not read on for a client that does not take what comes", async () => {
    let sent = 0;
    await using flood = await listen((socket) => {
      const chunk = Buffer.alloc(64 << 10);
      const more = () => {
        while (!socket.destroyed && sent < 256 << 20) {
          sent += chunk.length;
          if (!socket.write(chunk)) return;
        }
      };
      socket.on("drain", more);
      more();
    });
    await using test = await openTestProxy({
      rules: parseHosts([`flood.test:${flood.port}`]),
      resolver: names({ "flood.test": LOCAL }),
      reach: "machine",
      limits: { idleMs: 500 },
    });
    const socket = test.connect();
    socket.pause();
    socket.write(`CONNECT flood.test:${flood.port} HTTP/1.1\r\nHost: x\r\n\r\n`);
    // Nothing moves any more, so the idle time passes: that end is what we wait for.
    await until(() => flood.count() === 1 && flood.sockets.size === 0);
    expect(sent).toBeLessThan(64 << 20);
    expect(test.proxy.stats().bytesIn).toBeLessThan(8 << 20);
    socket.destroy();
  });

  it("ends when the client goes, when the host breaks off, when nothing moves, and at once on close", async () => {
    await using test = await open();
    const gone = test.connect();
    gone.write(connect());
    await once(gone, "data");
    gone.destroy();
    await until(() => echo.sockets.size === 0);

    const broken = test.connect();
    broken.write(connect());
    await until(() => echo.sockets.size === 1);
    for (const socket of echo.sockets) socket.resetAndDestroy();
    await readAll(broken);

    await using idle = await open({ idleMs: 50 });
    expect(await idle.ask(connect())).toBe(OK);

    const held = test.connect();
    held.write(connect());
    await once(held, "data");
    await test.proxy.close();
    await readAll(held);
    await until(() => echo.sockets.size === 0);
    await expect(stat(test.proxy.socketPath)).rejects.toThrow(/ENOENT/);
  });

  it("holds to the bytes the run may use, in each direction, to the byte", async () => {
    await using out = await open({ bytesOut: 10 });
    const socket = out.connect();
    socket.write(`${connect()}0123456789`);
    await until(() => out.proxy.stats().bytesIn === 10);
    socket.write("x");
    await readAll(socket);
    expect(out.proxy.stats()).toEqual({ connections: 1, bytesIn: 10, bytesOut: 10, refused: 1 });
    expect(out.refusals).toEqual([`echo.test ${echo.port} bytes`]);
    expect(await out.ask(connect())).toMatch(/^HTTP\/1\.1 403 .*used up/s);

    await using into = await open({ bytesIn: 9 });
    expect(await into.ask(`${connect()}0123456789`)).toBe(OK);
    expect(into.proxy.stats().bytesIn).toBe(0);
  });

  it("holds to connections at once and requests per minute", async () => {
    await using test = await open({ connections: 2, requestsPerMinute: 3 });
    const held = [test.connect(), test.connect()];
    for (const socket of held) socket.write(connect());
    await until(() => echo.sockets.size === 2);
    expect(await test.ask(connect())).toBe("");
    expect(test.refusals).toEqual([" 0 connections"]);
    for (const socket of held) socket.destroy();
    await until(() => echo.sockets.size === 0);
    // The proxy may hear of their end later than the host does: until then there is no room.
    const third = await until(() =>
      test.ask("CONNECT evil.test:1 HTTP/1.1\r\nHost: x\r\n\r\n").then((got) => got || false),
    );
    expect(third).toMatch(/^HTTP\/1\.1 403/);
    const before = echo.count();
    expect(await test.ask(connect())).toMatch(/^HTTP\/1\.1 429 Too Many Requests\r\n/);
    expect(echo.count()).toBe(before);
  });

  it("tells what could not be reached, by its cause", async () => {
    const closed = await listen();
    await closed[Symbol.asyncDispose]();
    const rules = parseHosts([`closed.test:${closed.port}`, "none.test:1", "slow.test:1"]);
    const reach = "machine";
    const status = async (test: TestProxy, host: string) =>
      (await test.ask(`CONNECT ${host} HTTP/1.1\r\nHost: x\r\n\r\n`)).split("\r\n")[0];

    await using test = await openTestProxy({ rules, reach, resolver: names({ "closed.test": LOCAL }) });
    expect(await status(test, `closed.test:${closed.port}`)).toBe("HTTP/1.1 502 Bad Gateway");
    expect(await status(test, "none.test:1")).toBe("HTTP/1.1 502 Bad Gateway");
    expect(test.refusals).toEqual([`closed.test ${closed.port} unreachable`, "none.test 1 unresolved"]);

    const mute = { resolve: () => new Promise<never>(() => undefined), cancel: () => undefined };
    await using slow = await openTestProxy({ rules, reach, resolver: mute, limits: { connectMs: 100 } });
    expect(await status(slow, "slow.test:1")).toBe("HTTP/1.1 504 Gateway Timeout");
    expect(slow.refusals).toEqual(["slow.test 1 timeout"]);
  });

  it("waits for a request no longer than for a host", async () => {
    await using test = await open({ connectMs: 100 });
    await test.ask("");
    await test.ask("CONNECT echo.te");
    expect(test.refusals).toEqual([" 0 malformed"]);
    expect(test.proxy.stats()).toMatchObject({ connections: 0, refused: 2 });
  });

  it("reports each refusal once and counts them all", async () => {
    await using test = await open();
    for (const port of [1, 1, 2]) {
      expect(await test.ask(`CONNECT evil.test:${port} HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(
        /^HTTP\/1\.1 403 Forbidden\r\n.*\r\n\r\nevil\.test:\d: This host is not among those the run may reach/s,
      );
    }
    expect(test.refusals).toEqual(["evil.test 1 host", "evil.test 2 host"]);
    expect(test.proxy.stats().refused).toBe(3);
  });
});

describe("plain HTTP", () => {
  /** A host that answers with what it was asked. */
  const serve = async (
    handler: (incoming: IncomingMessage, response: ServerResponse, body: string) => void,
    limits: Partial<NetworkLimits> = {},
  ) => {
    const heads: string[] = [];
    const server = createHttp(async (incoming, response) => {
      let body = "";
      for await (const chunk of incoming) body += chunk;
      handler(incoming, response, body);
    });
    const listener = await listen(
      (socket) => socket.on("data", (chunk) => heads.push(chunk.toString("latin1"))),
      server,
    );
    const test = await openTestProxy({
      rules: parseHosts([`web.test:${listener.port}`]),
      resolver: names({ "web.test": LOCAL }),
      reach: "machine",
      limits,
    });
    return {
      ...test,
      url: `http://web.test:${listener.port}`,
      host: `web.test:${listener.port}`,
      heads,
      async [Symbol.asyncDispose]() {
        await test[Symbol.asyncDispose]();
        await listener[Symbol.asyncDispose]();
      },
    };
  };
  const mirror = (incoming: IncomingMessage, response: ServerResponse, body: string) => {
    response.setHeader("Set-Cookie", ["a=1", "b=2"]);
    response.setHeader("Keep-Alive", "timeout=5");
    response.end(
      JSON.stringify({ method: incoming.method, url: incoming.url, headers: incoming.rawHeaders, body }),
    );
  };
  const bodyOf = (answer: string) => JSON.parse(/\{.*\}/s.exec(answer)?.[0] ?? "null");

  it("is asked for anew: our Host, no header of the hop, the path as it was", async () => {
    await using test = await serve(mirror);
    const answer = await test.ask(
      `GET ${test.url}/a/../b%2f//c?d=%20 HTTP/1.1\r\nHost: evil.test\r\nProxy-Authorization: secret\r\nX-Keep: yes\r\n` +
        "Connection: X-Drop, keep-alive\r\nX-Drop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\n\r\n",
    );
    expect(bodyOf(answer)).toEqual({
      method: "GET",
      url: "/a/../b%2f//c?d=%20",
      headers: ["Host", test.host, "X-Keep", "yes", "Connection", "close"],
      body: "",
    });
    expect(answer).toMatch(/Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n/);
    expect(answer.toLowerCase()).not.toContain("keep-alive");
  });

  it("takes bodies of both kinds, and says itself how long they are", async () => {
    await using test = await serve(mirror);
    const post = (rest: string) => test.ask(`POST ${test.url} HTTP/1.1\r\nHost: x\r\n${rest}`);
    const framed = (answer: string) => {
      const { url, headers, body } = bodyOf(answer);
      return [url, headers.slice(2, -2), body];
    };
    expect(framed(await post("Content-Length: 3\r\n\r\nabc"))).toEqual(["/", ["Content-Length", "3"], "abc"]);
    expect(framed(await post("Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"))).toEqual(
      ["/", ["Transfer-Encoding", "chunked"], "abc"],
    );
    expect(framed(await post("\r\n"))).toEqual(["/", ["Content-Length", "0"], ""]);
    expect(await test.ask(`HEAD ${test.url}?q HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 200 OK\r\n.*\r\n\r\n$/s,
    );
    expect(test.proxy.stats()).toMatchObject({ connections: 4, refused: 0 });
  });

  const POST = "POST URL HTTP/1.1\r\nHost: x\r\n";
  const HIDDEN = "GET URL/hidden HTTP/1.1\r\nHost: x\r\n\r\n";
  it.each([
    [
      "two ways to say how long",
      `${POST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${HIDDEN}`,
    ],
    [
      "the same the other way round",
      `${POST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n${HIDDEN}`,
    ],
    ["two lengths", `${POST}Content-Length: 0\r\nContent-Length: 40\r\n\r\n${HIDDEN}`],
    ["a list of lengths", `${POST}Content-Length: 0, 0\r\n\r\n${HIDDEN}`],
    ["a signed length", `${POST}Content-Length: +0\r\n\r\n${HIDDEN}`],
    ["another coding before chunked", `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
    ["chunked, then another", `${POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${HIDDEN}`],
    ["a coding nobody knows", `${POST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${HIDDEN}`],
    ["a space before the colon", `${POST}Content-Length : 4\r\n\r\n${HIDDEN}`],
    ["a folded line", `${POST}X: a\r\n b\r\n\r\n${HIDDEN}`],
    ["a bare line feed", `${POST}X: a\nTransfer-Encoding: chunked\r\n\r\n${HIDDEN}`],
    ["a bare carriage return", `${POST}X: a\rY: b\r\n\r\n${HIDDEN}`],
    ["a NUL", `${POST}X: a\0b\r\n\r\n${HIDDEN}`],
    ["a head beyond the limit", `${POST}X: ${"a".repeat(20_000)}\r\n\r\n${HIDDEN}`],
    ["a path that is none", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["another scheme", "GET ftp://web.test/ HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["a user name", "GET http://web.test@evil.test/ HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["no version", "GET URL\r\n\r\n"],
    ["HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    ["CONNECT with a length", "CONNECT HOST HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"],
    ["CONNECT to a URL", "CONNECT URL/ HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["CONNECT without a port", "CONNECT web.test HTTP/1.1\r\nHost: x\r\n\r\n"],
    ["CONNECT to a path", "CONNECT /run/gateway.sock HTTP/1.1\r\nHost: x\r\n\r\n"],
  ])("refuses %s before anything is dialled", async (_name, bytes) => {
    await using test = await serve(mirror);
    const said = bytes.replaceAll("URL", test.url).replaceAll("HOST", test.host);
    expect(await test.ask(said)).toMatch(/^(HTTP\/1\.1 4\d\d |$)/);
    expect(test.heads).toEqual([]);
    expect(test.refusals).toEqual([" 0 malformed"]);
  });

  it("breaks off at a chunk that is none: what follows is no request", async () => {
    await using test = await serve(mirror);
    const said = `POST ${test.url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\nGET ${test.url}/hidden HTTP/1.1\r\nHost: x\r\n\r\n`;
    await test.ask(said);
    expect(test.heads.join("")).not.toContain("hidden");
  });

  it("serves one request per connection, and nothing behind it", async () => {
    await using test = await serve(mirror);
    const get = (path: string) => `GET ${test.url}${path} HTTP/1.1\r\nHost: x\r\n\r\n`;
    await test.ask(get("/first") + get("/hidden"));
    await test.ask(`${get("/first")}CONNECT ${test.host} HTTP/1.1\r\nHost: x\r\n\r\n${get("/hidden")}`);
    expect(test.heads.join("")).not.toContain("hidden");
    expect(test.refusals).toEqual([" 0 malformed"]);
  });

  it("passes on a host's refusal to read on, and breaks off where it does", async () => {
    await using early = await serve((incoming, response) => {
      response.writeHead(413, { "content-length": 5 }).end("large");
      incoming.destroy();
    });
    expect(await early.ask(`POST ${early.url} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc`)).toMatch(
      /^HTTP\/1\.1 413 .*large$/s,
    );
    await using broken = await serve((_incoming, response) => {
      response.writeHead(200, { "content-length": 100 });
      response.write("some", () => response.socket?.resetAndDestroy());
    });
    const answer = await broken.ask(`GET ${broken.url} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect(answer).toMatch(/^(HTTP\/1\.1 502|.*content-length: 100\r\n.*some$)/s);
    await expect.poll(() => broken.refusals).toEqual([`${broken.host.replace(":", " ")} unreachable`]);
    await using mute = await serve((_incoming, response) => void response.socket?.end("no HTTP\r\n\r\n"));
    expect(await mute.ask(`GET ${mute.url} HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(/^HTTP\/1\.1 502 /);
  });

  it("counts bytes, heads included, and waits no longer than the limit", async () => {
    await using counted = await serve((_incoming, response) => response.end("x".repeat(1000)), {
      bytesIn: 1050,
    });
    const get = (url: string) => `GET ${url} HTTP/1.1\r\nHost: x\r\n\r\n`;
    expect(await counted.ask(get(counted.url))).not.toContain("x".repeat(1000));
    await expect.poll(() => counted.refusals).toEqual([`${counted.host.replace(":", " ")} bytes`]);
    await using sent = await serve(mirror, { bytesOut: 200 });
    await sent.ask(`POST ${sent.url} HTTP/1.1\r\nHost: x\r\nContent-Length: 300\r\n\r\n${"x".repeat(300)}`);
    await expect.poll(() => sent.refusals).toEqual([`${sent.host.replace(":", " ")} bytes`]);
    expect(sent.heads.join("")).not.toContain("xxx");
    await using silent = await serve(() => undefined, { idleMs: 50 });
    expect(await silent.ask(get(silent.url))).toMatch(/^HTTP\/1\.1 504 /);
  });
});
