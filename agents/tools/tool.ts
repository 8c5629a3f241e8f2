import { z } from "zod";
import type { ToolSpec } from "../loop/model.ts";
import type { ToolHost } from "./host.ts";

/** What a tool is told of the turn it works in. */
interface ToolContext {
  readonly host: ToolHost;
  readonly signal: AbortSignal;
  /** What the model gets to see of an output, characters. */
  readonly outputChars: number;
}

/** A call whose fields have been checked. */
export interface PreparedCall {
  readonly input: Readonly<Record<string, unknown>>;
  /** What it works on, for watchers: a path, a command. */
  readonly title: string;
  /** @returns what the model is told. @throws ToolFailure and AppError to be told to it; whatever else is ours. */
  run(context: ToolContext): Promise<string>;
}

/** Something a model can ask for. */
export interface Tool {
  readonly name: string;
  /** The permission it takes, by opencode's name. */
  readonly permission: string;
  readonly spec: ToolSpec;
  /** @throws ToolFailure for fields that are missing or wrong. */
  prepare(fields: unknown, directory: string): PreparedCall;
}

/** What the model is told instead of a result: what is wrong and what it can do about it. */
export class ToolFailure extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ToolFailure";
  }
}

interface ToolDefinition<Params> {
  readonly name: string;
  readonly permission: string;
  readonly description: string;
  readonly params: z.ZodType<Params>;
  /** `directory` is the working directory, absolute. */
  title(params: Params, directory: string): string;
  run(params: Params, context: ToolContext): Promise<string>;
}

/** A tool whose fields are known to it by type and to the model by JSON schema, from one definition. */
export function defineTool<Params extends Record<string, unknown>>(definition: ToolDefinition<Params>): Tool {
  const { name, permission, description, params } = definition;
  const { $schema: _, ...parameters } = z.toJSONSchema(params, { io: "input" });
  return {
    name,
    permission,
    spec: { name, description, parameters },
    prepare(fields, directory) {
      const parsed = params.safeParse(withoutNulls(fields));
      if (!parsed.success) throw new ToolFailure(wrongFields(name, parsed.error));
      const input = parsed.data;
      return {
        input,
        title: definition.title(input, directory),
        run: (context) => definition.run(input, context),
      };
    },
  };
}

/** Many models write null for what they leave out. */
function withoutNulls(fields: unknown): unknown {
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) return fields;
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

function wrongFields(tool: string, error: z.ZodError): string {
  const issues = error.issues.map(({ path, message }) => `${path.join(".") || "arguments"}: ${message}`);
  return `The arguments of ${tool} are wrong. ${issues.slice(0, 10).join("; ")}. Call it again with right ones.`;
}
