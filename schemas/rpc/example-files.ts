import { methods } from "./index.ts";

/** Generated files are JSON for people: indented, lists of plain values on one line, a closing newline. */
export function toJson(value: unknown): string {
  const plainList = /\[\n\s+([^[\]{}\n]+(?:\n[^[\]{}\n]+)*)\n\s+\]/g;
  const text = JSON.stringify(value, null, 2);
  return `${text.replace(plainList, (_, items: string) => `[${items.replace(/\n\s+/g, " ")}]`)}\n`;
}

/** One file per method: its example as it travels, request and response. */
export function exampleFiles(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(methods).map(([name, { summary, example }]) => [
      `${name}.json`,
      toJson({
        summary,
        request: { jsonrpc: "2.0", method: name, params: example.params, id: 1 },
        response: { jsonrpc: "2.0", result: example.result, id: 1 },
      }),
    ]),
  );
}
