import { once } from "node:events";
import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AppError } from "#schemas";
import { type TestHttpServer, testHttpServer } from "#tests/support/http-server.ts";
import type { Caller } from "../authenticate.ts";
import { TokenBuckets } from "../token-bucket.ts";
import { bearerOf, createRequireCaller } from "./caller.ts";
import { HealthRegistry } from "./health.ts";
import { Origins } from "./origins.ts";
import { closeHttpServer, portOf } from "./server.ts";

const open: TestHttpServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server[Symbol.asyncDispose]()));
});

async function start(...options: Parameters<typeof testHttpServer>): Promise<TestHttpServer> {
  const server = await testHttpServer(...options);
  open.push(server);
  return server;
}

vi.setConfig({ expect: { poll: { timeout: 30_000 } } });

describe("headers", () => {
  it("carry the usual protections and a request id, the caller's own when harmless", async () => {
    const { url } = await start();
    const answer = await fetch(`${url}/health`, { headers: { "x-request-id": "trace-1" } });
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "x-request-id": "trace-1",
      "x-content-type-options": "nosniff",
      "x-frame-options": "DENY",
      "referrer-policy": "no-referrer",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    });
    for (const bad of ["a b", "x".repeat(200), "<script>"]) {
      const id = (await fetch(`${url}/health`, { headers: { "x-request-id": bad } })).headers.get(
        "x-request-id",
      );
      expect(id).toMatch(/^[\w-]{16}$/);
    }
  });

  it("leave a route's own policy and other content alone", async () => {
    const { url } = await start({}, (app) => {
      app.get("/page", async (_request, reply) => reply.type("text/html").send("<p>"));
      app.get("/own", async (_request, reply) => reply.header("content-security-policy", "x").send({}));
      app.get("/nothing", async (_request, reply) => reply.code(204).send());
    });
    expect((await fetch(`${url}/page`)).headers.get("content-security-policy")).toBeNull();
    expect((await fetch(`${url}/own`)).headers.get("content-security-policy")).toBe("x");
    expect((await fetch(`${url}/nothing`)).headers.get("content-security-policy")).toBeNull();
  });

  it("[MU-4] neither query string nor headers reach the log", async () => {
    const { url, lines } = await start();
    await fetch(`${url}/nowhere?prompt=CANARY`, { headers: { authorization: "Bearer CANARY" } });
    const line = () => lines.find(({ path }) => path === "/nowhere");
    await expect.poll(line).toBeDefined();
    expect(JSON.stringify(lines)).not.toContain("CANARY");
    expect(line()).toMatchObject({
      msg: "request",
      method: "GET",
      status: 404,
      ip: "127.0.0.1",
      request_id: expect.any(String),
    });
  });
});

describe("origins", () => {
  it("[GW-2] answer the pages we allow and no others, never with a wildcard or credentials", async () => {
    const { url, port } = await start();
    const ask = (origin: string, method = "POST") =>
      fetch(`${url}/echo`, {
        method,
        headers: {
          origin,
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization",
        },
      });
    const own = [`http://127.0.0.1:${port}`, `http://localhost:${port}`, "https://studio.example"];
    for (const origin of own) {
      const preflight = await ask(origin, "OPTIONS");
      expect(preflight.status).toBe(204);
      expect(preflight.headers.get("access-control-allow-origin")).toBe(origin);
      expect(preflight.headers.get("access-control-allow-headers")).toBe("authorization");
      expect(preflight.headers.get("access-control-allow-credentials")).toBeNull();
      expect((await ask(origin)).headers.get("access-control-allow-origin")).toBe(origin);
    }
    const others = [
      `http://127.0.0.1:${port + 1}`,
      "https://studio.example.evil",
      "http://studio.example",
      "null",
      "x",
    ];
    for (const origin of others) {
      const preflight = await ask(origin, "OPTIONS");
      expect(preflight.status).toBe(404);
      expect(preflight.headers.get("access-control-allow-origin")).toBeNull();
      expect((await ask(origin)).headers.get("access-control-allow-origin")).toBeNull();
    }
  });

  it("let a page read that it was refused for its rate", async () => {
    const perIp = new TokenBuckets({ perSecond: 0.01, burst: 1 });
    const { post, url } = await start({ perIp });
    expect((await post("1")).status).toBe(200);
    const refused = await post("1", { origin: "https://studio.example" });
    expect(refused.status).toBe(429);
    expect(refused.headers.get("access-control-allow-origin")).toBe("https://studio.example");
    expect(refused.headers.get("retry-after")).toBe("100");
    expect((await refused.json()).error).toMatchObject({ code: "RateLimited", retry_after_seconds: 100 });
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  it("judge requests of WebSockets too", () => {
    const origins = new Origins(["https://studio.example/"]);
    origins.addOwn(6711, "::");
    origins.addOwn(6811, "fd00::1");
    expect(origins.allowsRequest(undefined, "x")).toBe(true);
    expect(origins.allowsRequest("HTTPS://Studio.example:443", "x")).toBe(true);
    expect(origins.allowsRequest("http://[fd00::1]:6811", "x")).toBe(true);
    expect(origins.allowsRequest("http://192.168.1.5:6711", "192.168.1.5:6711")).toBe(true);
    expect(origins.allowsRequest("http://evil.example", "192.168.1.5:6711")).toBe(false);
    expect(origins.allowsRequest("http://evil.example", undefined)).toBe(false);
    expect(origins.allowsRequest("null", "null")).toBe(false);
    expect(new Origins().allows("http://127.0.0.1:6711")).toBe(false);
  });
});

describe("callers", () => {
  const authenticate = async (bearer: string | undefined) => {
    if (bearer !== "good" && bearer !== "task") throw new AppError("Unauthenticated", "No.");
    const via: Caller["via"] = bearer === "task" ? "task" : "jwt";
    return { user_id: "usr_1", username: "ada", role: "developer" as const, via };
  };

  it("[GW-2] are required, have their role checked and their rate counted", async () => {
    const perUser = new TokenBuckets({ perSecond: 0.01, burst: 3 });
    const requireCaller = createRequireCaller({ authenticate, perUser });
    const { url } = await start({}, (app) => {
      app.get("/me", async (request) => requireCaller(request));
      app.get("/admin", async (request) => requireCaller(request, "admin"));
    });
    const ask = async (path: string, authorization?: string) => {
      const answer = await fetch(url + path, {
        headers: authorization === undefined ? {} : { authorization },
      });
      return {
        status: answer.status,
        challenge: answer.headers.get("www-authenticate"),
        body: await answer.json(),
      };
    };
    expect(await ask("/me")).toMatchObject({ status: 401, challenge: "Bearer" });
    expect(await ask("/me", "Bearer bad")).toMatchObject({ status: 401 });
    expect(await ask("/me", "Bearer task")).toMatchObject({ status: 401 });
    expect(await ask("/me", "Bearer good")).toMatchObject({ status: 200, body: { user_id: "usr_1" } });
    expect(await ask("/admin", "Bearer good")).toMatchObject({
      status: 403,
      body: { error: { code: "Forbidden" } },
    });
    expect(await ask("/me", "Bearer good")).toMatchObject({ status: 200 });
    expect(await ask("/me", "Bearer good")).toMatchObject({ status: 429 });
  });

  it("without a limit are only proven", async () => {
    const requireCaller = createRequireCaller({ authenticate });
    const { url } = await start({}, (app) => app.get("/me", async (request) => requireCaller(request)));
    const answer = await fetch(`${url}/me`, { headers: { authorization: "bearer good" } });
    expect(answer.status).toBe(200);
  });

  it("bearers are read strictly", () => {
    expect(bearerOf("Bearer abc")).toBe("abc");
    expect(bearerOf("bearer  abc ")).toBe("abc");
    for (const other of [undefined, "", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "XBearer a"]) {
      expect(bearerOf(other)).toBeUndefined();
    }
  });

  it("X-Forwarded-For counts only from a trusted proxy", async () => {
    const whoami = (app: FastifyInstance) => app.get("/ip", async ({ ip }) => ({ ip }));
    const headers = { "x-forwarded-for": "203.0.113.9, 203.0.113.7" };
    const direct = await start({}, whoami);
    expect(await (await fetch(`${direct.url}/ip`, { headers })).json()).toEqual({ ip: "127.0.0.1" });
    const behind = await start({ trustedProxies: ["127.0.0.0/8"] }, whoami);
    expect(await (await fetch(`${behind.url}/ip`, { headers })).json()).toEqual({ ip: "203.0.113.7" });
    const other = await start({ trustedProxies: ["10.0.0.1"] }, whoami);
    expect(await (await fetch(`${other.url}/ip`, { headers })).json()).toEqual({ ip: "127.0.0.1" });
  });
});

describe("health", () => {
  it("is ok only when every check passes, shows only what was written for callers", async () => {
    const health = new HealthRegistry({ timeoutMs: 50, cacheMs: 0 });
    const { url } = await start({ health });
    const ask = async () => {
      const answer = await fetch(`${url}/health`);
      return { http: answer.status, ...(await answer.json()) };
    };
    health.add("one", async () => undefined);
    health.add("two", async () => "18 connections");
    expect(await ask()).toEqual({
      http: 200,
      status: "ok",
      checks: { one: { ok: true }, two: { ok: true, detail: "18 connections" } },
    });
    health.add("named", async () => {
      throw new AppError("Unavailable", "The database does not answer.");
    });
    health.add("foreign", async () => {
      throw new Error("connect 10.0.0.5:5432 as admin");
    });
    health.add("hangs", () => new Promise(() => undefined));
    expect(await ask()).toMatchObject({
      http: 503,
      status: "unavailable",
      checks: {
        one: { ok: true },
        named: { ok: false, detail: "The database does not answer." },
        foreign: { ok: false, detail: "failed" },
        hangs: { ok: false, detail: "no answer within 50 ms" },
      },
    });
  });

  it("asks at most once a second however many want to know", async () => {
    let asked = 0;
    const health = new HealthRegistry({ cacheMs: 50 });
    health.add("x", async () => {
      asked += 1;
      return undefined;
    });
    await Promise.all(Array.from({ length: 20 }, () => health.report()));
    expect(asked).toBe(1);
    await sleep(60);
    await health.report();
    expect(asked).toBe(2);
  });
});

describe("closing", () => {
  it("[MU-11] lets a request in flight finish, ends idle connections, takes no new one", async () => {
    const begun = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    const { app, url, port } = await start({}, (app) => {
      app.get("/slow", async () => {
        begun.resolve();
        await go.promise;
        return { done: true };
      });
    });
    const agent = new Agent({ keepAlive: true });
    const idle = request({ port, host: "127.0.0.1", path: "/health", agent }).end();
    const [answer] = await once(idle, "response");
    answer.resume();
    await once(answer, "end");
    const slow = fetch(`${url}/slow`);
    await begun.promise;
    // A grace longer than the test's time-out: nothing but the end of its requests ends the server.
    const closing = closeHttpServer(app, 600_000);
    await expect.poll(() => app.server.listening).toBe(false);
    go.resolve();
    await closing;
    expect(await (await slow).json()).toEqual({ done: true });
    await expect(fetch(`${url}/health`)).rejects.toThrow();
    agent.destroy();
  });

  it("[MU-11] ends what does not finish within the grace", async () => {
    const { app, url } = await start({}, (app) => {
      app.get("/forever", (_request, reply) => {
        reply.hijack();
        reply.raw.write("x");
      });
    });
    const answer = await fetch(`${url}/forever`);
    await closeHttpServer(app, 100);
    await expect(answer.text()).rejects.toThrow();
  });

  it("a port is known only while listening on one", async () => {
    const { app } = await start();
    await closeHttpServer(app, 100);
    expect(() => portOf(app)).toThrow("does not listen");
  });
});
