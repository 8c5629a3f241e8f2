import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { Counter } from "prom-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHttpServer, createLogger, HealthRegistry, Origins, portOf } from "#platform";
import { beforeMetrics, metricsRegistry, registerMetrics } from "./metrics.ts";

const log = createLogger({ level: "silent", pretty: false });

async function serve(token?: string) {
  const app = createHttpServer({
    log,
    origins: new Origins(),
    health: new HealthRegistry(),
    bodyBytes: 1024,
  });
  registerMetrics(app, { token });
  await app.listen({ host: "127.0.0.1", port: 0 });
  const url = `http://127.0.0.1:${portOf(app)}/metrics`;
  const read = (headers: Record<string, string> = {}) => fetch(url, { headers });
  return { read, url, [Symbol.asyncDispose]: () => app.close() };
}

describe("GET /metrics", () => {
  const counter = new Counter({
    name: "cds_test_total",
    help: "Only here.",
    labelNames: ["kind"],
    registers: [metricsRegistry],
  });
  beforeAll(() => counter.inc({ kind: 'a "quoted" one' }, 3));
  afterAll(() => metricsRegistry.removeSingleMetric("cds_test_total"));

  it("is Prometheus' text, refreshed before each reading, whatever a refresher does", async () => {
    await using server = await serve();
    let refreshed = 0;
    const end = beforeMetrics(async () => void refreshed++);
    const endBroken = beforeMetrics(async () => {
      throw new Error("no figures today");
    });
    const response = await server.read();
    end();
    endBroken();
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toMatch(/^text\/plain/);
    expect(await response.text()).toContain('cds_test_total{kind="a \\"quoted\\" one"} 3');
    await server.read();
    expect(refreshed).toBe(1);
  });

  it("is for this machine, not for what a proxy passes on", async () => {
    await using server = await serve();
    expect((await server.read({ "x-forwarded-for": "203.0.113.9" })).status).toBe(403);
    expect((await server.read({ forwarded: "for=203.0.113.9" })).status).toBe(403);
    expect((await server.read({ "x-real-ip": "203.0.113.9" })).status).toBe(403);
    expect((await server.read({ via: "1.1 proxy" })).status).toBe(403);
  });

  it("is not for a page whose name leads here", async () => {
    await using server = await serve();
    const statusFor = async (host: string) => {
      const call = request(server.url, { headers: { host } }).end();
      const [response] = (await once(call, "response")) as [IncomingMessage];
      response.resume();
      return response.statusCode;
    };
    expect(await statusFor("evil.example")).toBe(403);
    expect(await statusFor("localhost:6988")).toBe(200);
  });

  it("is for whoever has the token, when there is one", async () => {
    await using server = await serve("a-long-metrics-token");
    expect((await server.read()).status).toBe(403);
    expect((await server.read({ authorization: "Bearer a-long-metrics-tokeX" })).status).toBe(403);
    expect((await server.read({ authorization: "Bearer a-long-metrics-token" })).status).toBe(200);
  });
});
