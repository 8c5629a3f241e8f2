import { isObject } from "#platform/json.ts";

export type ToolKind = "glob" | "read" | "write" | "edit" | "bash";

export interface DemoCall {
  name: string;
  arguments: Record<string, string>;
}

/** What each kind of tool is called, and which of its parameters takes which value. First match wins. */
const KINDS: Record<ToolKind, { names: string[]; parameters: [pattern: RegExp, value: string][] }> = {
  glob: { names: ["glob"], parameters: [[/pattern/i, "pattern"]] },
  read: { names: ["read", "read_file"], parameters: [[/path|file/i, "path"]] },
  write: {
    names: ["write", "write_file", "create_file"],
    parameters: [
      [/content|text/i, "content"],
      [/path|file/i, "path"],
    ],
  },
  edit: {
    names: ["edit", "edit_file"],
    parameters: [
      [/old/i, "before"],
      [/new/i, "after"],
      [/path|file/i, "path"],
    ],
  },
  bash: {
    names: ["bash", "shell"],
    parameters: [
      [/command|cmd/i, "command"],
      [/description/i, "description"],
    ],
  },
};

/** The tools a request offers, spoken to in the parameter names of their own schemas. */
export class Toolbox {
  readonly #tools = new Map<string, { properties: string[]; required: string[] }>();

  constructor(tools: readonly unknown[]) {
    for (const tool of tools) {
      const offered = isObject(tool) && isObject(tool.function) ? tool.function : undefined;
      if (offered === undefined || typeof offered.name !== "string") continue;
      const schema = isObject(offered.parameters) ? offered.parameters : {};
      this.#tools.set(offered.name, {
        properties: isObject(schema.properties) ? Object.keys(schema.properties) : [],
        required: Array.isArray(schema.required)
          ? schema.required.filter((name) => typeof name === "string")
          : [],
      });
    }
  }

  get empty(): boolean {
    return this.#tools.size === 0;
  }

  /** A call of a tool of this kind; undefined when none is offered, or one that asks for more than we know. */
  call(kind: ToolKind, values: Record<string, string>): DemoCall | undefined {
    const { names, parameters } = KINDS[kind];
    for (const name of names) {
      const tool = this.#tools.get(name);
      if (tool === undefined) continue;
      const args: Record<string, string> = {};
      for (const property of tool.properties) {
        const value = parameters.find(([pattern]) => pattern.test(property))?.[1];
        const given = value === undefined || value in args ? undefined : values[value];
        if (given !== undefined) args[property] = given;
      }
      const said = new Set(Object.values(args));
      const complete = tool.required.every((property) => property in args);
      if (complete && Object.values(values).every((value) => said.has(value) || kind === "bash")) {
        return { name, arguments: args };
      }
    }
    return undefined;
  }
}
