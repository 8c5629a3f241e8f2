import { readdirSync, readFileSync } from "node:fs";
import jsonSchemaMetaSchema from "@json-schema-tools/meta-schema";
import openrpcMetaSchema from "@open-rpc/meta-schema";
import { Ajv } from "ajv";
import { describe, expect, it } from "vitest";
import { ERRORS } from "../errors.ts";
import { exampleFiles, toJson } from "./example-files.ts";
import { buildHandbook } from "./handbook.ts";
import { type MethodName, methods } from "./index.ts";
import { buildOpenRpc } from "./openrpc.ts";

const read = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");
const document = buildOpenRpc();
const entries = Object.entries(methods) as [MethodName, (typeof methods)[MethodName]][];

describe("[GW-1] rpc.discover", () => {
  it("is valid by OpenRPC's own meta-schema", () => {
    const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
    // Both name a dialect of their own, which ajv would want to fetch, and one points into a `$ref` it cannot follow.
    const plain = (schema: object) =>
      JSON.parse(
        JSON.stringify({ ...schema, $schema: "http://json-schema.org/draft-07/schema#" }).replaceAll(
          JSON.stringify({
            $ref: "https://meta.json-schema.tools/#/definitions/JSONSchemaObject/properties/$ref",
          }),
          JSON.stringify({ type: "string", format: "uri-reference" }),
        ),
      );
    ajv.addSchema({ ...plain(jsonSchemaMetaSchema), $id: "https://meta.json-schema.tools" });
    const validate = ajv.compile(plain(openrpcMetaSchema as object));
    const valid = validate(JSON.parse(JSON.stringify(document)));
    expect(validate.errors ?? []).toEqual([]);
    expect(valid).toBe(true);
  });

  it("has every method once, and itself", () => {
    const names = document.methods.map(({ name }) => name);
    expect(names).toEqual([...Object.keys(methods), "rpc.discover"]);
  });

  it("names params as the checks do, the required ones first", () => {
    const dispatch = document.methods.find(({ name }) => name === "agent.dispatch");
    const required = dispatch?.params.map((param) => param.required);
    expect(required?.slice(0, 3)).toEqual([true, true, false]);
    expect(required?.slice(2)).not.toContain(true);
    expect(dispatch?.params.map(({ name }) => name).slice(0, 3)).toEqual(["project_id", "model", "agent"]);
    expect(dispatch?.params.find(({ name }) => name === "priority")?.schema).toMatchObject({ default: 5 });
  });

  it("refers only to errors it holds, whose numbers are told apart", () => {
    const held = Object.keys(document.components.errors);
    for (const { errors } of document.methods) {
      for (const { $ref } of errors) expect(held).toContain($ref.replace("#/components/errors/", ""));
    }
    const numbers = Object.values(ERRORS).map(({ rpc }) => rpc);
    expect(new Set(numbers).size).toBe(numbers.length);
  });

  it("every schema in it compiles, and takes the example", () => {
    const ajv = new Ajv({ strict: false, validateFormats: false });
    for (const { params, result, examples } of document.methods) {
      for (const { schema, name } of params) {
        const validate = ajv.compile(schema);
        for (const example of examples) {
          const given = example.params.find((param) => param.name === name);
          if (given !== undefined) expect(validate(given.value)).toBe(true);
        }
      }
      const validate = ajv.compile(result.schema);
      for (const example of examples) expect(validate(example.result.value)).toBe(true);
    }
  });
});

describe("[GW-1] examples", () => {
  it.each(entries)("%s: its example is what its schemas say", (_name, spec) => {
    expect(spec.params.safeParse(spec.example.params).error?.issues ?? []).toEqual([]);
    expect(spec.result.safeParse(spec.example.result).error?.issues ?? []).toEqual([]);
  });

  it("what is generated is current: run `npm run schemas`", () => {
    expect(read("openrpc.json")).toBe(toJson(document));
    expect(read("../../docs/rpc-api.md")).toBe(buildHandbook());
    const folder = "../../examples/rpc/";
    const present = readdirSync(new URL(folder, import.meta.url)).filter((name) => name.endsWith(".json"));
    const files = exampleFiles();
    expect(present.sort()).toEqual(Object.keys(files).sort());
    for (const [name, content] of Object.entries(files)) expect(read(folder + name)).toBe(content);
  });
});
