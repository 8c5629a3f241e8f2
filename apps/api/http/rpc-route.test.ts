import { request as httpRequest } from "node:http";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type MethodName, methods } from "#schemas";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer({ CDS_MAX_BATCH: "10", CDS_MAX_BODY_BYTES: "300000" });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

const me = (id: unknown) => ({ jsonrpc: "2.0", method: "session.me", params: {}, id });
const code = (body: { error: { data: { code: string } } }) => body.error.data.code;

describe("[GW-1] the examples of the JSON-RPC 2.0 specification", () => {
  it("a call with named parameters, in any order", async () => {
    const { status, body } = await server.post(
      `{"jsonrpc": "2.0", "id": 3, "params": {"state": "failed", "limit": 1}, "method": "agent.history"}`,
      ada.token,
    );
    expect(status).toBe(200);
    expect(body).toEqual({ jsonrpc: "2.0", result: { tasks: [] }, id: 3 });
  });

  it("a call with positional parameters is answered: by name", async () => {
    const { status, body } = await server.post({ ...me(1), params: [42, 23] }, ada.token);
    expect(status).toBe(400);
    expect(body).toMatchObject({ id: 1, error: { code: -32602, data: { code: "InvalidParams" } } });
    expect(body.error.message).toContain("by name");
  });

  it("a notification, also of a method that does not exist, is not answered", async () => {
    for (const method of ["session.me", "update", "foobar"]) {
      const answer = await server.post({ jsonrpc: "2.0", method }, ada.token);
      expect(answer).toMatchObject({ status: 204, text: "" });
    }
  });

  it("a method that does not exist", async () => {
    const { status, body } = await server.post({ jsonrpc: "2.0", method: "foobar", id: "1" });
    expect(status).toBe(404);
    expect(body).toMatchObject({ jsonrpc: "2.0", error: { code: -32601 }, id: "1" });
  });

  it("invalid JSON", async () => {
    const { status, body } = await server.post(
      `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`,
    );
    expect(status).toBe(400);
    expect(body).toMatchObject({ jsonrpc: "2.0", error: { code: -32700 }, id: null });
  });

  it("an invalid request object", async () => {
    const { status, body } = await server.post(`{"jsonrpc": "2.0", "method": 1, "params": "bar"}`);
    expect(status).toBe(400);
    expect(body).toMatchObject({ jsonrpc: "2.0", error: { code: -32600 }, id: null });
  });

  it("a batch of invalid JSON", async () => {
    const { body } = await server.post(
      `[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]`,
    );
    expect(body).toMatchObject({ error: { code: -32700 }, id: null });
  });

  it("an empty array", async () => {
    const { status, body } = await server.post("[]");
    expect(status).toBe(400);
    expect(body).toMatchObject({ error: { code: -32600 }, id: null });
  });

  it("an invalid batch, not empty", async () => {
    const { status, body } = await server.post("[1]");
    expect(status).toBe(200);
    expect(body).toMatchObject([{ error: { code: -32600 }, id: null }]);
  });

  it("invalid batch", async () => {
    const { body } = await server.post("[1,2,3]");
    expect(body).toHaveLength(3);
  });

  it("a batch of everything", async () => {
    const { status, body } = await server.post(
      [
        me("1"),
        { jsonrpc: "2.0", method: "notify_hello" },
        me("2"),
        { foo: "boo" },
        { jsonrpc: "2.0", method: "foo.get", params: { name: "myself" }, id: "5" },
        { jsonrpc: "2.0", method: "agent.list", id: "9" },
      ],
      ada.token,
    );
    expect(status).toBe(200);
    expect(body.map(({ id }: { id: unknown }) => id)).toEqual(["1", "2", null, "5", "9"]);
    expect(body[2].error.code).toBe(-32600);
    expect(body[3].error.code).toBe(-32601);
  });

  it("a batch of notifications only", async () => {
    const { status, text } = await server.post([
      { jsonrpc: "2.0", method: "a" },
      { jsonrpc: "2.0", method: "b" },
    ]);
    expect({ status, text }).toEqual({ status: 204, text: "" });
  });
});

describe("[GW-1] what a request may look like", () => {
  it("ids come back the same: strings, numbers, fractions, null", async () => {
    for (const id of ["", "ä\u2028", 0, -7, 1.5, 1e-7, 2 ** 53 - 1, null]) {
      const { body } = await server.post(me(id), ada.token);
      expect(body).toMatchObject({ id, result: { user: { username: "ada" } } });
    }
  });

  it("other ids are none, nor are numbers that cannot come back exactly", async () => {
    for (const id of ["true", "{}", "[]", "1e400", "9007199254740993"]) {
      const { status, body } = await server.post(
        `{"jsonrpc":"2.0","method":"session.me","id":${id}}`,
        ada.token,
      );
      expect(status).toBe(400);
      expect(body).toMatchObject({ id: null, error: { code: -32600 } });
    }
  });

  it("anything but jsonrpc 2.0 is refused under its id", async () => {
    for (const jsonrpc of ["1.0", 2, null, undefined]) {
      const { body } = await server.post({ jsonrpc, method: "session.me", id: 4 }, ada.token);
      expect(body).toMatchObject({ id: 4, error: { code: -32600 } });
    }
  });

  it("params may be left out, but not be a value without names", async () => {
    expect((await server.post({ jsonrpc: "2.0", method: "session.me", id: 1 }, ada.token)).status).toBe(200);
    for (const params of [null, "x", 1, false]) {
      const { body } = await server.post({ jsonrpc: "2.0", method: "session.me", params, id: 1 }, ada.token);
      expect(body).toMatchObject({ id: 1, error: { code: -32600 } });
    }
  });

  it("broken UTF-8 and an empty body are parse errors", async () => {
    for (const bytes of [
      new Uint8Array([0x22, 0xff, 0x22]),
      new Uint8Array(),
      new Uint8Array([0x20, 0x0a]),
    ]) {
      const { status, body } = await server.post(bytes);
      expect(status).toBe(400);
      expect(body).toMatchObject({ id: null, error: { code: -32700, data: { code: "ParseError" } } });
    }
  });

  it("a parse error repeats nothing of what was sent", async () => {
    const { text } = await server.post(`{"api_key": "sk-very-secret" "x"}`);
    expect(text).not.toContain("secret");
  });

  it("the content type does not matter, the bytes do", async () => {
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/json-rpc"]) {
      const { status } = await server.post(me(1), ada.token, { "content-type": type });
      expect(status).toBe(200);
    }
  });

  it("paths route as dots do", async () => {
    const { body } = await server.post({ jsonrpc: "2.0", method: "agent/list", id: 1 }, ada.token);
    expect(body.result.agents[0].name).toBe("CodeAgent");
  });

  it("keys that would reach a prototype are just unknown keys", async () => {
    for (const key of ["__proto__", "constructor", "prototype", "toString"]) {
      const text = `{"jsonrpc":"2.0","method":"session.me","params":{"${key}":{"polluted":1}},"id":1}`;
      const { body } = await server.post(text, ada.token);
      expect(code(body)).toBe("InvalidParams");
      expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
      const named = await server.post({ jsonrpc: "2.0", method: key, id: 1 }, ada.token);
      expect(code(named.body)).toBe("MethodNotFound");
    }
    const top = `{"jsonrpc":"2.0","method":"session.me","id":1,"__proto__":{"params":[1]}}`;
    expect((await server.post(top, ada.token)).status).toBe(200);
  });
});

describe("[GW-2] errors name what is wrong", () => {
  it("the nearest method is suggested", async () => {
    const hint = async (method: string) =>
      (await server.post({ jsonrpc: "2.0", method, id: 1 })).body.error.data.hint;
    expect(await hint("agent.dispach")).toBe('Did you mean "agent.dispatch"?');
    expect(await hint("fs/raed")).toBe('Did you mean "fs.read"?');
    expect(await hint("zzzzzzzzzzzzzzzzzzzzzzzz")).toContain("rpc.discover");
  });

  it("every wrong field is named by its path", async () => {
    const params = { agent: "", project_id: 7, model: "demo", priority: 10, colour: "red" };
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "agent.dispatch", params, id: 1 },
      ada.token,
    );
    expect(status).toBe(400);
    const paths = body.error.data.issues.map(({ path }: { path: string }) => path).sort();
    expect(paths).toEqual([
      "params.agent",
      "params.colour",
      "params.priority",
      "params.project_id",
      "params.prompt",
    ]);
    expect(body.error.message).toContain("(and 4 more)");
  });

  it("text that could not be kept as it came is refused, wherever it stands", async () => {
    const set = (models: string[]) =>
      server.post(
        { jsonrpc: "2.0", method: "provider.set", params: { base_url: "https://a.example", models }, id: 1 },
        ada.token,
      );
    for (const bad of ["a\0b", "\ud800"]) {
      const { body } = await set(["ok", bad]);
      expect(body.error.data.issues[0].path).toBe("params.models[1]");
    }
  });

  it("who is not signed in is told so, with 401", async () => {
    for (const token of [undefined, "garbage", `${ada.token}x`, "cds_unknown", "a.b.c"]) {
      const { status, body, headers } = await server.post(me(1), token);
      expect(status).toBe(401);
      expect(headers.get("www-authenticate")).toBe("Bearer");
      expect(body).toMatchObject({ id: 1, error: { code: -32001, data: { code: "Unauthenticated" } } });
    }
    const basic = await server.post(me(1), undefined, { authorization: "Basic YWRhOmFkYQ==" });
    expect(basic.status).toBe(401);
  });

  it("an expired token and a task's token are refused", async () => {
    const expired = await server.taskTokens.issue({
      task_id: "t",
      user_id: ada.id,
      attempt: 1,
      ttlSeconds: 60,
    });
    expect((await server.post(me(1), expired)).status).toBe(401);
  });

  it("a viewer may look but not change", async () => {
    const viewer = await server.user("viewer", "viewer");
    expect((await server.post(me(1), viewer.token)).status).toBe(200);
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "provider.delete", id: 1 },
      viewer.token,
    );
    expect(status).toBe(403);
    expect(body.error).toMatchObject({ code: -32003, message: expect.stringContaining("developer") });
  });

  it("methods that need a connection say where they work", async () => {
    const { status, body } = await server.post(
      { jsonrpc: "2.0", method: "agent.subscribe", params: { task_id: "x" }, id: 1 },
      ada.token,
    );
    expect(status).toBe(400);
    expect(body.error.message).toContain("WebSocket");
  });

  it("a batch over the limit is refused as a whole", async () => {
    const { status, body } = await server.post(
      Array.from({ length: 11 }, (_, id) => me(id)),
      ada.token,
    );
    expect(status).toBe(400);
    expect(body).toMatchObject({
      id: null,
      error: { code: -32600, data: { hint: expect.stringContaining("10") } },
    });
  });

  it("a body over the limit is a 413 that the sender can read", async () => {
    const big = JSON.stringify({ ...me(1), params: { x: "y".repeat(400_000) } });
    const { status, body } = await server.post(big, ada.token);
    expect(status).toBe(413);
    expect(body).toMatchObject({ id: null, error: { code: -32013, data: { limit_bytes: 300_000 } } });
    // Nameless callers get less room, and are told to sign in.
    expect((await server.post(`"${"y".repeat(100_000)}"`)).status).toBe(401);
    expect((await server.post(`"${"y".repeat(100_000)}"`, "garbage")).status).toBe(401);
  });

  it("an endless body is cut off", async () => {
    const outcome = await new Promise<string>((resolve) => {
      const request = httpRequest(`${server.url}/rpc`, { method: "POST" }, (response) => {
        response.resume();
        resolve(String(response.statusCode));
      });
      request.on("error", () => resolve("cut"));
      const chunk = Buffer.alloc(64 * 1024, 0x20);
      const pour = () => {
        while (!request.destroyed && request.write(chunk));
        if (!request.destroyed) request.once("drain", pour);
      };
      pour();
    });
    expect(["401", "cut"]).toContain(outcome);
  });

  it("a sender that breaks off harms nobody", async () => {
    await new Promise<void>((resolve) => {
      const request = httpRequest(`${server.url}/rpc`, {
        method: "POST",
        headers: { "content-length": "100" },
      });
      request.on("error", () => resolve());
      request.write("{");
      setTimeout(() => request.destroy(new Error("gone")), 50);
    });
    expect((await server.post(me(1), ada.token)).status).toBe(200);
  });
});

describe("[GW-1] any bytes get a valid answer", () => {
  const isAnswer = (value: unknown): boolean => {
    if (Array.isArray(value)) return value.length > 0 && value.every(isAnswer);
    const { jsonrpc, id, error, result } = value as Record<string, unknown>;
    return jsonrpc === "2.0" && id !== undefined && (error === undefined) !== (result === undefined);
  };
  const check = async (body: unknown) => {
    const { status, text } = await server.post(body, ada.token);
    if (text === "") expect(status).toBe(204);
    else expect(isAnswer(JSON.parse(text))).toBe(true);
    expect(status).not.toBe(500);
  };

  it("bytes at random", async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), check), { numRuns: 150 });
  });

  it("JSON at random", async () => {
    await fc.assert(fc.asyncProperty(fc.json(), check), { numRuns: 150 });
  });

  it("requests with params at random, for every method", async () => {
    const name = fc.constantFrom(...(Object.keys(methods) as MethodName[]));
    const request = fc.record({
      jsonrpc: fc.constant("2.0"),
      method: name,
      params: fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.jsonValue()),
      id: fc.oneof(fc.string(), fc.integer(), fc.constant(null)),
    });
    await fc.assert(fc.asyncProperty(fc.oneof(request, fc.array(request, { maxLength: 5 })), check), {
      numRuns: 150,
    });
  });

  it("the examples' params, each value replaced by something at random", async () => {
    const mutated = fc.constantFrom(...(Object.keys(methods) as MethodName[])).chain((method) => {
      const params = methods[method].example.params as Record<string, unknown>;
      const nasty = fc.oneof(
        fc.string({ unit: "binary" }),
        fc.constantFrom(
          "\0",
          "\ud800",
          "../../etc/passwd",
          "x".repeat(5000),
          -1,
          2 ** 31,
          2 ** 53,
          1e308,
          null,
        ),
        fc.jsonValue(),
      );
      const fields = Object.fromEntries(
        Object.entries(params).map(([key, value]) => [key, fc.oneof(fc.constant(value), nasty)]),
      );
      return fc.record(fields).map((some) => ({ jsonrpc: "2.0", method, params: some, id: 1 }));
    });
    await fc.assert(fc.asyncProperty(mutated, check), { numRuns: 300 });
  });

  it("nesting a hundred thousand deep", async () => {
    await check("[".repeat(100_000));
    await check(
      `{"jsonrpc":"2.0","method":"session.me","id":1,"params":${'{"a":'.repeat(20_000)}1${"}".repeat(20_000)}}`,
    );
  });
});

describe("[GW-2] rates", () => {
  it("beyond the user's rate a call is a 429 with Retry-After, and one of a batch fails alone", async () => {
    await using limited = await apiServer({ CDS_REQUESTS_PER_USER: "0.5", CDS_REQUESTS_PER_USER_BURST: "3" });
    const user = await limited.user();
    const other = await limited.user();
    const { body } = await limited.post([1, 2, 3, 4].map(me), user.token);
    expect(body.map((answer: { error?: unknown }) => answer.error === undefined)).toEqual([
      true,
      true,
      true,
      false,
    ]);
    const { status, headers, body: refused } = await limited.post(me(5), user.token);
    expect(status).toBe(429);
    expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(refused).toMatchObject({ id: 5, error: { code: -32029, data: { retry_after_seconds: 2 } } });
    expect((await limited.post(me(1), other.token)).status).toBe(200);
  });

  it("beyond the address's rate everything is, as a JSON-RPC error", async () => {
    await using limited = await apiServer({ CDS_REQUESTS_PER_IP: "0.1", CDS_REQUESTS_PER_IP_BURST: "2" });
    const user = await limited.user();
    expect((await limited.post(me(1), user.token)).status).toBe(200);
    expect((await limited.post(me(2), user.token)).status).toBe(200);
    const { status, body } = await limited.post(me(3), user.token);
    expect(status).toBe(429);
    expect(body).toMatchObject({ jsonrpc: "2.0", id: null, error: { code: -32029 } });
  });

  it("nameless calls count against the address", async () => {
    await using limited = await apiServer({ CDS_REQUESTS_PER_IP: "0.1", CDS_REQUESTS_PER_IP_BURST: "4" });
    const { body } = await limited.post(
      [1, 2, 3, 4, 5].map((id) => ({ jsonrpc: "2.0", method: "rpc.discover", id })),
    );
    expect(body.filter((answer: { error?: unknown }) => answer.error === undefined)).toHaveLength(3);
  });
});

describe("what is logged", () => {
  it("the method, its code and who called; neither params nor tokens", async () => {
    const api_key = "sk-canary-never-logged";
    await server.post(
      {
        jsonrpc: "2.0",
        method: "provider.set",
        params: { base_url: "https://p.example/v1", api_key, models: [] },
        id: 1,
      },
      ada.token,
    );
    const lines = server.log.join("");
    expect(lines).toContain('"method":"provider.set"');
    expect(lines).toContain(ada.id);
    expect(lines).not.toContain("canary");
    expect(lines).not.toContain(ada.token);
  });
});
