import type { GbnfJsonSchema } from "node-llama-cpp";

/** Schema objects and fixed values in one schema; a grammar grows with them, and its compiler is slow in both. */
const MAX_NODES = 1000;
/** Characters of fixed values and property names, which a grammar spells out. */
const MAX_SPELLED = 50_000;
/** Nesting of a schema, references not followed. */
const MAX_DEPTH = 32;
/** Repetitions a grammar spells out one by one. */
const MAX_REPETITIONS = 1000;

/** Say nothing about which values are allowed. */
const ANNOTATIONS = new Set([
  "title",
  "description",
  "default",
  "examples",
  "deprecated",
  "readOnly",
  "writeOnly",
  "$schema",
  "$id",
  "$comment",
  "strict",
  "name",
]);

/** What a grammar can keep, by type. */
const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties", "minProperties", "maxProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "format"],
};
const FORMATS = new Set(["date", "time", "date-time"]);
const SIMPLE_TYPES = new Set(["string", "number", "integer", "boolean", "null"]);

/** Why a schema cannot become a grammar. */
export class SchemaProblem extends Error {}

interface Options {
  /**
   * Refuse constraints that cannot be kept. Without it they are left out: the arguments of a tool are the model's own words
   * for its caller to check, an answer by schema is promised.
   */
  strict: boolean;
}

/**
 * A JSON schema as the library's grammars take it. They know fewer keywords, every property is always generated, and a
 * property that is not named never is.
 * @throws SchemaProblem saying what cannot be kept and where.
 */
export function toGrammarSchema(schema: unknown, options: Options): GbnfJsonSchema {
  return new Translation(options).root(schema);
}

type Schema = Record<string, unknown>;

class Translation {
  readonly #strict: boolean;
  #nodes = 0;
  #spelled = 0;
  #definitions: Schema = {};
  /** Translated ones by name; a name is there before its translation, for it may refer to itself. */
  readonly #translated = new Map<string, unknown>();

  constructor({ strict }: Options) {
    this.#strict = strict;
  }

  root(given: unknown): GbnfJsonSchema {
    const schema = asSchema(given, "schema");
    this.#definitions = {
      ...asSchema(schema.definitions ?? {}, "schema.definitions"),
      ...asSchema(schema.$defs ?? {}, "schema.$defs"),
    };
    const { $defs: _, definitions: __, ...rest } = schema;
    const root = this.#node(rest, "schema", 0);
    refuseEndless(root, Object.fromEntries(this.#translated));
    if (this.#translated.size === 0) return root as GbnfJsonSchema;
    return { ...root, $defs: Object.fromEntries(this.#translated) } as GbnfJsonSchema;
  }

  #node(given: unknown, path: string, depth: number): Schema {
    if (given === true) return this.#anything();
    const schema = asSchema(given, path);
    this.#count();
    if (depth > MAX_DEPTH) throw new SchemaProblem(`it is nested more than ${MAX_DEPTH} deep`);
    const described = typeof schema.description === "string" ? { description: schema.description } : {};
    return { ...this.#shape(schema, path, depth), ...described };
  }

  #shape(schema: Schema, path: string, depth: number): Schema {
    if (typeof schema.$ref === "string") return this.#reference(schema, schema.$ref, path, depth);
    const alternatives = schema.anyOf ?? schema.oneOf;
    if (alternatives !== undefined) return this.#alternatives(schema, alternatives, path, depth);
    if (schema.allOf !== undefined) return this.#only(schema, path, depth);
    if (schema.const !== undefined) {
      this.#allow(schema, ["const", "type"], path);
      return { const: this.#literal(schema.const, `${path}.const`) };
    }
    if (schema.enum !== undefined) {
      this.#allow(schema, ["enum", "type"], path);
      const values = list(schema.enum, `${path}.enum`).map((value) => this.#literal(value, `${path}.enum`));
      if (values.length === 0) throw new SchemaProblem(`${path}.enum is empty`);
      return { enum: values };
    }
    return this.#typed(schema, path, depth);
  }

  #literal(value: unknown, path: string) {
    this.#count();
    const checked = literal(value, path);
    this.#spell(String(checked));
    return checked;
  }

  #count(): void {
    if (++this.#nodes > MAX_NODES) throw new SchemaProblem(`it has more than ${MAX_NODES} parts`);
  }

  #spell(text: string): void {
    this.#spelled += text.length;
    if (this.#spelled > MAX_SPELLED) {
      throw new SchemaProblem(`its fixed values and names have more than ${MAX_SPELLED} characters`);
    }
  }

  #typed(schema: Schema, path: string, depth: number): Schema {
    const type = schema.type ?? impliedType(schema);
    if (Array.isArray(type)) {
      // One alternative for each type, with the keywords that belong to it.
      const shared = Object.keys(schema).filter((key) => !ANNOTATIONS.has(key) && key !== "type");
      return {
        oneOf: type.map((one: unknown) => {
          const own = KEYWORDS[String(one)] ?? [];
          const keywords = shared.filter((key) => own.includes(key)).map((key) => [key, schema[key]]);
          return this.#node({ type: one, ...Object.fromEntries(keywords) }, path, depth + 1);
        }),
      };
    }
    if (type === undefined) {
      this.#allow(schema, [], path);
      return this.#anything();
    }
    if (typeof type !== "string") throw new SchemaProblem(`${path}.type is no type`);
    this.#allow(schema, ["type", ...(KEYWORDS[type] ?? [])], path);
    if (type === "object") return this.#object(schema, path, depth);
    if (type === "array") return this.#array(schema, path, depth);
    if (!SIMPLE_TYPES.has(type)) throw new SchemaProblem(`${path}.type "${type}" is no type of JSON`);
    return type === "string" ? this.#string(schema, path) : { type };
  }

  #object(schema: Schema, path: string, depth: number): Schema {
    const properties = Object.entries(asSchema(schema.properties ?? {}, `${path}.properties`));
    for (const [name] of properties) this.#spell(name);
    const additional = schema.additionalProperties;
    // Left out means "anything goes", but a model that is let invent properties does so without end.
    const open = properties.length === 0 ? (additional ?? true) : (additional ?? false);
    return {
      type: "object",
      properties: Object.fromEntries(
        properties.map(([name, value]) => [name, this.#node(value, `${path}.properties.${name}`, depth + 1)]),
      ),
      ...(schema.required === undefined ? {} : { required: schema.required }),
      ...(open === false
        ? {}
        : {
            additionalProperties:
              open === true ? true : this.#node(open, `${path}.additionalProperties`, depth + 1),
          }),
      ...counts(schema, ["minProperties", "maxProperties"], path),
    };
  }

  #array(schema: Schema, path: string, depth: number): Schema {
    const { items, prefixItems } = schema;
    return {
      type: "array",
      ...(items === undefined || items === true
        ? {}
        : { items: this.#node(items, `${path}.items`, depth + 1) }),
      ...(prefixItems === undefined
        ? {}
        : {
            prefixItems: list(prefixItems, `${path}.prefixItems`).map((item, index) =>
              this.#node(item, `${path}.prefixItems[${index}]`, depth + 1),
            ),
          }),
      ...counts(schema, ["minItems", "maxItems"], path),
    };
  }

  #string(schema: Schema, path: string): Schema {
    const { format } = schema;
    if (format === undefined) return { type: "string", ...counts(schema, ["minLength", "maxLength"], path) };
    if (FORMATS.has(String(format))) return { type: "string", format };
    if (this.#strict) throw new SchemaProblem(`${path}.format "${String(format)}" is not supported`);
    return { type: "string", ...counts(schema, ["minLength", "maxLength"], path) };
  }

  #alternatives(schema: Schema, alternatives: unknown, path: string, depth: number): Schema {
    const keyword = schema.anyOf === undefined ? "oneOf" : "anyOf";
    this.#allow(schema, [keyword, "type"], path);
    const all = list(alternatives, `${path}.${keyword}`);
    if (all.length === 0) throw new SchemaProblem(`${path}.${keyword} is empty`);
    return { oneOf: all.map((one, index) => this.#node(one, `${path}.${keyword}[${index}]`, depth + 1)) };
  }

  /** `allOf` with one member is how descriptions are put on references. */
  #only(schema: Schema, path: string, depth: number): Schema {
    this.#allow(schema, ["allOf"], path);
    const all = list(schema.allOf, `${path}.allOf`);
    if (all.length === 1) return this.#node(all[0], `${path}.allOf[0]`, depth + 1);
    if (this.#strict) throw new SchemaProblem(`${path}.allOf with several members is not supported`);
    return this.#anything();
  }

  #reference(schema: Schema, reference: string, path: string, depth: number): Schema {
    this.#allow(schema, ["$ref"], path);
    const name = /^#\/(?:\$defs|definitions)\/([^/]+)$/.exec(reference)?.[1];
    if (name === undefined || this.#definitions[name] === undefined) {
      throw new SchemaProblem(
        `${path}.$ref "${reference}" is not supported: only #/$defs/NAME of the same schema is`,
      );
    }
    if (!this.#translated.has(name)) {
      this.#translated.set(name, {});
      this.#translated.set(name, this.#node(this.#definitions[name], `schema.$defs.${name}`, depth + 1));
    }
    return { $ref: `#/$defs/${name}` };
  }

  #anything(): Schema {
    return {
      oneOf: [
        { type: ["string", "number", "boolean", "null"] },
        { type: "object", additionalProperties: true },
        { type: "array" },
      ],
    };
  }

  #allow(schema: Schema, keywords: readonly string[], path: string): void {
    if (!this.#strict) return;
    const unknown = Object.keys(schema).find((key) => !keywords.includes(key) && !ANNOTATIONS.has(key));
    if (unknown !== undefined) throw new SchemaProblem(`${path}.${unknown} is not supported`);
  }
}

function impliedType(schema: Schema): string | undefined {
  if (schema.properties !== undefined || schema.additionalProperties !== undefined) return "object";
  return schema.items === undefined && schema.prefixItems === undefined ? undefined : "array";
}

function asSchema(given: unknown, path: string): Schema {
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return given as Schema;
  throw new SchemaProblem(`${path} is no schema object`);
}

function list(given: unknown, path: string): unknown[] {
  if (Array.isArray(given)) return given;
  throw new SchemaProblem(`${path} is no list`);
}

function literal(value: unknown, path: string): string | number | boolean | null {
  if (
    value === null ||
    typeof value === "string" ||
    typeof value === "number" ||
    typeof value === "boolean"
  ) {
    return value;
  }
  throw new SchemaProblem(`${path} with an object or a list is not supported`);
}

function counts(schema: Schema, keywords: readonly string[], path: string): Schema {
  const given = keywords.filter((keyword) => schema[keyword] !== undefined);
  return Object.fromEntries(
    given.map((keyword) => {
      const count = schema[keyword];
      if (typeof count === "number" && Number.isInteger(count) && count >= 0 && count <= MAX_REPETITIONS) {
        return [keyword, count];
      }
      throw new SchemaProblem(`${path}.${keyword} must be a whole number from 0 to ${MAX_REPETITIONS}`);
    }),
  );
}

/** Since every property is generated, a definition that needs itself has no end. */
function refuseEndless(root: Schema, definitions: Record<string, unknown>): void {
  const ending = new Set<string>();
  const ends = (node: unknown): boolean => {
    const schema = node as Schema;
    if (typeof schema.$ref === "string") return ending.has(schema.$ref.slice("#/$defs/".length));
    if (Array.isArray(schema.oneOf)) return schema.oneOf.some(ends);
    const needed = [
      ...Object.values((schema.properties ?? {}) as Schema),
      ...((schema.prefixItems ?? []) as unknown[]),
      ...(Number(schema.minItems ?? 0) > 0 && schema.items !== undefined ? [schema.items] : []),
    ];
    return needed.every(ends);
  };
  for (let found = true; found; ) {
    const more = Object.keys(definitions).filter((name) => !ending.has(name) && ends(definitions[name]));
    for (const name of more) ending.add(name);
    found = more.length > 0;
  }
  if (ends(root)) return;
  throw new SchemaProblem(
    "it refers to itself without an end: every property is always generated, so make the one that refers nullable",
  );
}
