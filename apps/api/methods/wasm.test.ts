import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { assemble, w } from "#sandbox/testing/wasm-assembler.ts";
import { type ApiServer, type ApiUser, apiServer } from "#tests/support/api-server.ts";

let server: ApiServer;
let ada: ApiUser;
let project_id: string;

const files = { params: ["i32", "i32", "i32", "i32"], results: ["i32"] } as const;
const read = w.call(0, w.i32(0), w.i32(6), w.i32(100), w.i32(50));
const write = w.call(1, w.i32(6), w.i32(7), w.i32(100), read);

/** Adds, divides, never ends, copies a file of the project, grows. */
const MODULE = Buffer.from(
  assemble({
    imports: [
      { module: "cds", name: "file_read", params: [...files.params], results: [...files.results] },
      { module: "cds", name: "file_write", params: [...files.params], results: [...files.results] },
    ],
    memory: { min: 1 },
    data: [{ at: 0, bytes: "in.txtout.txt" }],
    functions: [
      { name: "add", params: ["i64", "i64"], results: ["i64"], code: w.add64(w.get(0), w.get(1)) },
      { name: "divide", params: ["i32", "i32"], results: ["i32"], code: w.divS(w.get(0), w.get(1)) },
      { name: "spin", code: w.loop(w.br(0)) },
      { name: "copy", results: ["i32"], code: write },
      { name: "grow", params: ["i32"], results: ["i32"], code: w.memoryGrow(w.get(0)) },
    ],
  }),
).toString("base64");

beforeAll(async () => {
  server = await apiServer({
    CDS_WASM_PER_USER: "2",
    CDS_WASM_TIMEOUT_MS: "20000",
    CDS_WASM_MAX_MEMORY_MB: "16",
  });
  ada = await server.user("ada");
  project_id = await server.project(ada);
  await ada.client.call("fs.write", { project_id, path: "in.txt", content: "Grüße\n" });
  await ada.client.call("fs.write", { project_id, path: "m.wasm", content: MODULE, encoding: "base64" });
});
afterAll(() => server[Symbol.asyncDispose]());

const load = async () => (await ada.client.call("wasm.load", { project_id, path: "m.wasm" })).instance_id;
const call = (instance_id: string, name: string, args: (number | string)[] = [], more = {}) =>
  ada.client.call("wasm.call", { instance_id, function: name, args, ...more });

describe("wasm.*", () => {
  it("[SB-wasm] loads from bytes or a file, calls exactly, lists and unloads", async () => {
    const loaded = await ada.client.call("wasm.load", { project_id, bytes: MODULE });
    expect(loaded.exports.find(({ name }) => name === "add")).toEqual({
      name: "add",
      kind: "function",
      params: ["i64", "i64"],
      results: ["i64"],
    });
    const { instance_id } = loaded;
    const sum = await call(instance_id, "add", ["9007199254740993", "-1"]);
    expect(sum).toMatchObject({ results: ["9007199254740992"], fuel_used: expect.any(Number) });
    expect((await call(instance_id, "add", ["1", "2"])).fuel_used).toBe(sum.fuel_used);
    const { instances } = await ada.client.call("wasm.instances", { project_id });
    expect(instances).toMatchObject([{ instance_id, source: "bytes", memory_bytes: 65_536 }]);
    await ada.client.call("wasm.unload", { instance_id });
    expect((await ada.client.call("wasm.instances", {})).instances).toEqual([]);
    await expect(call(instance_id, "add", ["1", "2"])).rejects.toMatchObject({ code: "NotFound" });
  });

  it("[SB-wasm] ends by its fuel, by name; a trap leaves it usable", async () => {
    const id = await load();
    await expect(call(id, "divide", [1, 0])).rejects.toMatchObject({
      code: "WasmTrap",
      details: { kind: expect.stringContaining("divi") },
    });
    expect((await call(id, "divide", [84, 2])).results).toEqual([42]);
    await expect(call(id, "spin", [], { fuel: 100_000 })).rejects.toMatchObject({
      code: "OutOfFuel",
      details: { fuel: 100_000 },
    });
    // Where it stopped, nobody knows: it is gone, and its place is free.
    await expect(call(id, "add", ["1", "2"])).rejects.toMatchObject({ code: "NotFound" });
    expect((await ada.client.call("wasm.instances", {})).instances).toEqual([]);
  });

  it("reads the project's files and makes a revision of what it writes", async () => {
    const id = await load();
    const { head } = { head: (await ada.client.call("project.open", { id: project_id })).revision };
    const result = await call(id, "copy");
    expect(result).toMatchObject({ results: [8], revision: head + 1 });
    expect((await ada.client.call("fs.read", { project_id, path: "out.txt" })).content).toBe("Grüße\n");
    const { revisions } = await ada.client.call("project.revisions", { project_id, limit: 1 });
    expect(revisions[0]).toMatchObject({ summary: "Call copy of m.wasm", author: "ada" });
    await ada.client.call("wasm.unload", { instance_id: id });
  });

  it("[SB-wasm] wasm.memory_limit holds, and is bounded itself", async () => {
    const instance_id = await load();
    const limited = await ada.client.call("wasm.memory_limit", { instance_id, bytes: 131_072 });
    expect(limited).toEqual({ instance_id, bytes: 131_072, used: 65_536 });
    expect((await call(instance_id, "grow", [1])).results).toEqual([1]);
    expect((await call(instance_id, "grow", [1])).results).toEqual([-1]);
    for (const bytes of [65_536, 1024 ** 3]) {
      await expect(ada.client.call("wasm.memory_limit", { instance_id, bytes })).rejects.toMatchObject({
        code: "InvalidParams",
      });
    }
    await ada.client.call("wasm.unload", { instance_id });
  });

  it("refuses what is no module, what is not there, wrong arguments, too many, and strangers", async () => {
    const bytes = Buffer.from("no module").toString("base64");
    await expect(ada.client.call("wasm.load", { project_id, bytes })).rejects.toMatchObject({
      code: "InvalidModule",
    });
    await expect(ada.client.call("wasm.load", { project_id })).rejects.toMatchObject({
      code: "InvalidParams",
    });
    await expect(ada.client.call("wasm.load", { project_id, path: "none.wasm" })).rejects.toMatchObject({
      code: "NotFound",
    });
    const [one, two] = [await load(), await load()];
    await expect(load()).rejects.toMatchObject({ code: "QuotaExceeded" });
    await expect(call(one, "add", [1])).rejects.toMatchObject({ code: "InvalidParams" });
    await expect(call(one, "nothing")).rejects.toMatchObject({ code: "InvalidParams" });
    const bob = await server.user("bob");
    await expect(
      bob.client.call("wasm.call", { instance_id: one, function: "add", args: ["1", "2"] }),
    ).rejects.toMatchObject({ code: "NotFound" });
    await expect(bob.client.call("wasm.load", { project_id, path: "m.wasm" })).rejects.toMatchObject({
      code: "NotFound",
    });
    await ada.client.call("wasm.unload", { instance_id: one });
    await ada.client.call("wasm.unload", { instance_id: two });
  });

  it("ends with its project", async () => {
    const own = await server.project(ada);
    const { instance_id } = await ada.client.call("wasm.load", { project_id: own, bytes: MODULE });
    await ada.client.call("project.delete", { id: own });
    await expect(call(instance_id, "add", ["1", "2"])).rejects.toMatchObject({ code: "NotFound" });
  });
});
