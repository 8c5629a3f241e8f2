import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { AppError } from "#schemas";
import { type TestHttpServer, testHttpServer } from "#tests/support/http-server.ts";
import { parseInput } from "./bodies.ts";

const open: TestHttpServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server[Symbol.asyncDispose]()));
});

async function start(...options: Parameters<typeof testHttpServer>): Promise<TestHttpServer> {
  const server = await testHttpServer(...options);
  open.push(server);
  return server;
}

/** What the server answers to bytes that no HTTP client would send. */
async function raw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.write(bytes);
  let answer = "";
  socket.on("data", (chunk) => {
    answer += chunk;
  });
  await once(socket, "close");
  return answer;
}

describe("bodies", () => {
  it("[GW-2] takes exactly the limit and refuses a byte more, announced or not", async () => {
    const { post, url } = await start();
    const fits = JSON.stringify("x".repeat(1022));
    expect((await post(fits)).status).toBe(200);
    const over = await post(`${fits} `);
    expect(over.status).toBe(413);
    expect(await over.json()).toMatchObject({ error: { code: "PayloadTooLarge" } });
    const stream = new ReadableStream<Uint8Array>({
      pull(controller) {
        controller.enqueue(new TextEncoder().encode("x".repeat(600)));
      },
    });
    const init = {
      method: "POST",
      body: stream,
      duplex: "half",
      headers: { "content-type": "application/json" },
    };
    // The server may close before the endless body is sent: either way nothing was taken.
    const status = await fetch(`${url}/echo`, init).then(
      (answer) => answer.status,
      () => 413,
    );
    expect(status).toBe(413);
  });

  it("refuses what is not JSON, not UTF-8 or reaches for a prototype", async () => {
    const { post } = await start();
    const bad = [
      "{",
      "",
      "nope",
      Buffer.from([0x22, 0xff, 0x22]),
      '{"a":{"__proto__":{"admin":true}}}',
      '{"\\u005f_proto__":1}',
    ];
    for (const body of bad.filter((one) => one !== "")) {
      const answer = await post(body);
      expect(answer.status).toBe(400);
      expect(await answer.json()).toMatchObject({ error: { code: "ParseError" } });
    }
    expect(await (await post("")).json()).toEqual({ body: null });
    expect(await (await post('{"text":"\\u00e4 __proto__"}')).json()).toEqual({
      body: { text: "ä __proto__" },
    });
  });

  it("refuses other content types with a word what to send", async () => {
    const { post } = await start();
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "text/html"]) {
      const answer = await post("a=1", { "content-type": type });
      expect(answer.status).toBe(400);
      expect((await answer.json()).error).toMatchObject({
        code: "InvalidRequest",
        hint: "Send application/json.",
      });
    }
  });

  it("names the wrong field", () => {
    const schema = z.strictObject({ files: z.array(z.strictObject({ path: z.string() })) });
    expect(parseInput(schema, { files: [] })).toEqual({ files: [] });
    expect(() => parseInput(schema, { files: [{ path: 1 }] })).toThrow(/^files\[0\]\.path: /);
    expect(() => parseInput(schema, undefined)).toThrow(/^files: /);
    expect(() => parseInput(schema, [])).toThrow(AppError);
    try {
      parseInput(schema, { files: [{ path: 1 }, {}] });
    } catch (error) {
      expect(error).toMatchObject({
        code: "InvalidParams",
        details: { issues: [{ path: "files[0].path" }, { path: "files[1].path" }] },
      });
    }
  });
});

describe("errors", () => {
  it("[GW-2] have one envelope, tell nothing of what was not foreseen, and log it", async () => {
    const { url, lines } = await start({}, (app) => {
      app.get("/boom", async () => {
        throw new Error("password of the database is hunter2");
      });
      app.get("/named", async () => {
        throw new AppError("Conflict", "Taken.", { hint: "Choose another." });
      });
      app.get("/teapot", async () => {
        throw Object.assign(new Error("short and stout"), { statusCode: 418 });
      });
      app.get("/large", async () => {
        throw Object.assign(new Error("x"), { statusCode: 413 });
      });
      app.get("/busy", async () => {
        throw Object.assign(new Error("x"), { statusCode: 503 });
      });
      app.get("/gateway", async () => {
        throw Object.assign(new Error("x"), { statusCode: 502 });
      });
    });
    const ask = async (path: string) => {
      const answer = await fetch(url + path);
      return { status: answer.status, ...(await answer.json()) };
    };
    expect(await ask("/boom")).toMatchObject({ status: 500, error: { code: "InternalError" } });
    expect(JSON.stringify(await ask("/boom"))).not.toContain("hunter2");
    expect(lines.some((line) => JSON.stringify(line).includes("hunter2"))).toBe(true);
    expect(await ask("/named")).toEqual({
      status: 409,
      error: { code: "Conflict", message: "Taken.", hint: "Choose another." },
    });
    expect(await ask("/teapot")).toMatchObject({ status: 400, error: { code: "InvalidRequest" } });
    expect(await ask("/large")).toMatchObject({ status: 413, error: { code: "PayloadTooLarge" } });
    expect(await ask("/busy")).toMatchObject({ status: 503, error: { code: "Unavailable" } });
    expect(await ask("/gateway")).toMatchObject({ status: 500, error: { code: "InternalError" } });
    expect(await ask("/none?token=abc")).toEqual({
      status: 404,
      error: { code: "NotFound", message: "There is no GET /none." },
    });
    expect(await ask("/%ff")).toMatchObject({ status: 400, error: { code: "InvalidRequest" } });
  });

  it("also answers what is not HTTP in its envelope", async () => {
    const { port } = await start();
    const nonsense = await raw(port, "nonsense\r\n\r\n");
    expect(nonsense).toMatch(/^HTTP\/1\.1 400 /);
    expect(nonsense).toContain('"code":"InvalidRequest"');
    const fat = await raw(port, `GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`);
    expect(fat).toMatch(/^HTTP\/1\.1 431 /);
    const length = await raw(
      port,
      "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
    );
    expect(length).toMatch(/^HTTP\/1\.1 400 /);
  });

  it("ends a request whose headers or body do not arrive in time", async () => {
    const { port } = await start({ timeouts: { headersMs: 200, requestMs: 400 } });
    expect(await raw(port, "GET /health HTTP/1.1\r\nhost:")).toMatch(/^HTTP\/1\.1 408 /);
    const body = await raw(
      port,
      "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    );
    expect(body).toMatch(/^HTTP\/1\.1 408 /);
  });

  it("outlives a client that breaks off", async () => {
    const { port, url } = await start();
    const socket = connect(port, "127.0.0.1");
    socket.write("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
    await sleep(30);
    socket.resetAndDestroy();
    await once(socket, "close");
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });
});
