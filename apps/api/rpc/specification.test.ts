import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildOpenRpc } from "#schemas/rpc/openrpc.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  server = await apiServer();
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

describe("[GW-1] rpc.discover", () => {
  it("tells everybody what there is, with the studio's own document", async () => {
    const { status, body } = await server.post({ jsonrpc: "2.0", method: "rpc.discover", id: 1 });
    expect(status).toBe(200);
    expect(body.result).toEqual(JSON.parse(JSON.stringify(buildOpenRpc())));
  });

  it("answers of a batch that grow too long are cut by call", async () => {
    await using small = await apiServer({ CDS_MAX_BODY_BYTES: "20000" });
    const ask = (id: number) => ({ jsonrpc: "2.0", method: "rpc.discover", id });
    const { body } = await small.post(Array.from({ length: 30 }, (_, id) => ask(id)));
    const failed = body.filter((answer: { error?: unknown }) => answer.error !== undefined);
    expect(failed.length).toBeGreaterThan(20);
    expect(code(failed[0])).toBe("PayloadTooLarge");
    expect(body).toHaveLength(30);
  });
});
