import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type MethodName, methods } from "#schemas";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;

beforeAll(async () => {
  // Without images no call boots a machine: what is tried here is what comes before that.
  server = await apiServer({ CDS_VM_IMAGES: "/nonexistent" });
  ada = await server.user("ada");
});
afterAll(() => server[Symbol.asyncDispose]());

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
