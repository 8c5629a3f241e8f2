import { describe, expect, it } from "vitest";
import { SchemaProblem, toGrammarSchema } from "./json-schema.ts";

const strict = (schema: unknown) => toGrammarSchema(schema, { strict: true });
const problem = (schema: unknown) => {
  try {
    strict(schema);
  } catch (error) {
    if (error instanceof SchemaProblem) return error.message;
    throw error;
  }
  throw new Error("nothing was refused");
};

describe("a JSON schema for a grammar", () => {
  it("keeps what grammars know", () => {
    expect(
      strict({
        title: "Person",
        type: "object",
        properties: {
          name: { type: "string", minLength: 1, description: "Full name" },
          age: { type: ["integer", "null"] },
          kind: { enum: ["a", "b"] },
          tags: { type: "array", items: { type: "string" }, maxItems: 3 },
          either: { anyOf: [{ type: "number" }, { const: "none" }] },
        },
        required: ["name"],
        additionalProperties: false,
      }),
    ).toEqual({
      type: "object",
      properties: {
        name: { type: "string", minLength: 1, description: "Full name" },
        age: { oneOf: [{ type: "integer" }, { type: "null" }] },
        kind: { enum: ["a", "b"] },
        tags: { type: "array", items: { type: "string" }, maxItems: 3 },
        either: { oneOf: [{ type: "number" }, { const: "none" }] },
      },
      required: ["name"],
    });
  });

  it("references to definitions stay, also to itself", () => {
    const node = {
      type: "object",
      properties: {
        value: { type: "string" },
        next: { anyOf: [{ $ref: "#/$defs/Node" }, { type: "null" }] },
      },
    };
    expect(strict({ $ref: "#/$defs/Node", $defs: { Node: node } })).toEqual({
      $ref: "#/$defs/Node",
      $defs: {
        Node: {
          type: "object",
          properties: {
            value: { type: "string" },
            next: { oneOf: [{ $ref: "#/$defs/Node" }, { type: "null" }] },
          },
        },
      },
    });
  });

  it("without an end is refused: every property would be generated", () => {
    const node = { type: "object", properties: { next: { $ref: "#/$defs/Node" } } };
    expect(problem({ $ref: "#/$defs/Node", $defs: { Node: node } })).toContain("without an end");
  });

  it("says what cannot be kept, and where", () => {
    expect(problem({ type: "string", pattern: "^a" })).toBe("schema.pattern is not supported");
    expect(problem({ type: "object", properties: { n: { type: "number", minimum: 1 } } })).toBe(
      "schema.properties.n.minimum is not supported",
    );
    expect(problem({ type: "string", format: "email" })).toContain('schema.format "email"');
    expect(problem({ $ref: "https://example.com/x" })).toContain("schema.$ref");
    expect(problem({ allOf: [{ type: "string" }, { type: "number" }] })).toContain("schema.allOf");
    expect(problem({ enum: [{}] })).toContain("schema.enum");
    expect(problem({ type: "array", minItems: 1e9 })).toContain("schema.minItems");
    expect(problem({ type: "thing" })).toContain('"thing"');
    expect(problem("text")).toContain("no schema object");
  });

  it("is bounded in size and depth", () => {
    const wide = {
      type: "object",
      properties: Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`p${i}`, { type: "null" }])),
    };
    expect(problem(wide)).toContain("more than 1000 parts");
    let deep: object = { type: "null" };
    for (let i = 0; i < 40; i++) deep = { type: "array", items: deep };
    expect(problem(deep)).toContain("nested more than 32 deep");
    const many = Array.from({ length: 200_000 }, (_, i) => `value ${i}`);
    expect(problem({ enum: many })).toContain("more than 1000 parts");
    const long = "a".repeat(60_000);
    for (const schema of [
      { enum: [long] },
      { const: long },
      { type: "object", properties: { [long]: { type: "null" } } },
    ]) {
      expect(problem(schema)).toContain("more than 50000 characters");
    }
  });

  it("of a tool's parameters lets go what it cannot keep", () => {
    const parameters = {
      type: "object",
      properties: { mail: { type: "string", format: "email", pattern: "@" } },
    };
    expect(toGrammarSchema(parameters, { strict: false })).toEqual({
      type: "object",
      properties: { mail: { type: "string" } },
    });
  });
});
