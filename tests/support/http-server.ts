import type { FastifyInstance } from "fastify";
import {
  closeHttpServer,
  createHttpServer,
  createLogger,
  HealthRegistry,
  type HttpServerOptions,
  Origins,
  portOf,
} from "#platform";

/** A bare server of ours on a free port, with a route that answers what it was sent, and its log. */
export interface TestHttpServer extends AsyncDisposable {
  app: FastifyInstance;
  url: string;
  port: number;
  lines: Record<string, unknown>[];
  post(body: BodyInit, headers?: Record<string, string>): Promise<Response>;
}

export async function testHttpServer(
  options: Partial<HttpServerOptions> = {},
  routes: (app: FastifyInstance) => void = () => {},
): Promise<TestHttpServer> {
  const lines: Record<string, unknown>[] = [];
  const log = createLogger(
    { level: "info", pretty: false },
    { write: (line) => void lines.push(JSON.parse(line)) },
  );
  const origins = options.origins ?? new Origins(["https://studio.example"]);
  const app = createHttpServer({ log, origins, health: new HealthRegistry(), bodyBytes: 1024, ...options });
  app.post("/echo", async ({ body }) => ({ body: body ?? null }));
  routes(app);
  await app.listen({ port: 0, host: "127.0.0.1" });
  const port = portOf(app);
  origins.addOwn(port, "127.0.0.1");
  const url = `http://127.0.0.1:${port}`;
  return {
    app,
    url,
    port,
    lines,
    post: (body, headers = {}) =>
      fetch(`${url}/echo`, {
        method: "POST",
        body,
        headers: { "content-type": "application/json", ...headers },
      }),
    [Symbol.asyncDispose]: () => closeHttpServer(app, 100),
  };
}
