import { ERRORS } from "../errors.ts";
import { buildOpenRpc, COMMON_ERRORS, type OpenRpcDocument, SIGNED_IN_ERRORS } from "./openrpc.ts";

type Method = OpenRpcDocument["methods"][number];
type Schema = Record<string, unknown>;

const INTRODUCTION = `# JSON-RPC API

Generated from the method specs by \`npm run schemas\`; the same as a machine reads it:
[schemas/rpc/openrpc.json](../schemas/rpc/openrpc.json), or the method \`rpc.discover\`.

- [JSON-RPC 2.0](https://www.jsonrpc.org/specification), params by name, at \`POST /rpc\` and \`WebSocket /ws\`.
- \`Authorization: Bearer\` with an access token (\`POST /auth/login\`) or an API key
  (\`POST /auth/api-key/generate\`). Where a WebSocket cannot send headers: the subprotocols
  \`cds.v1, bearer.<token>\`, or \`session.authenticate\`. Never in the address.
- An error's \`data.code\` is its name, \`data.hint\` what to do, \`data.issues\` the fields that are wrong. Over
  HTTP a single call's status fits its error (table at the end); a batch is always 200.
- \`agent/dispatch\` is understood as \`agent.dispatch\`.
- Ids are opaque. Lists with more to come answer \`next_cursor\`; send it as \`cursor\`.
- The events of a task also come as server-sent events: \`GET /tasks/:task_id/events\`, resumed with
  \`Last-Event-ID\`, closed by the server after \`done\`.
- Whole projects: \`GET /projects/:id/export.zip\`, \`POST /projects/:id/import\` (a zip as the body; \`?replace=1\`
  deletes what is not in it).
`;

/** `docs/rpc-api.md`: every method for a person to read, from the document a machine reads. */
export function buildHandbook(): string {
  const { methods } = buildOpenRpc();
  const groups = new Map<string, Method[]>();
  for (const method of methods) {
    const group = method.tags[0]?.name ?? "";
    groups.set(group, [...(groups.get(group) ?? []), method]);
  }
  const sections = [...groups].map(([group, members]) => `## ${group}\n\n${members.map(section).join("\n")}`);
  return `${INTRODUCTION}\n${sections.join("\n")}\n${errorTable()}`;
}

function section(method: Method): string {
  const who = method["x-access"] === "public" ? "anybody" : `${method["x-access"]} or more`;
  const notes = [`Who: ${who}.`, ...(method["x-streaming"] === true ? ["WebSocket only."] : [])];
  const params = method.params.map(
    ({ name, required, schema }) =>
      `| \`${name}\` | ${typeOf(schema)} | ${required === true ? "yes" : defaultOf(schema)} |`,
  );
  const table = params.length === 0 ? [] : ["| param | type | required |", "|---|---|---|", ...params, ""];
  const errors = method.errors
    .map(({ $ref }) => $ref.split("/").at(-1))
    .filter((name) => !COMMON.has(name ?? ""));
  return [
    `### ${method.name}`,
    "",
    `${method.summary} ${notes.join(" ")}`,
    "",
    ...table,
    ...(errors.length === 0 ? [] : [`Errors: ${errors.join(", ")}.`, ""]),
    ...exampleOf(method),
  ].join("\n");
}

/** What every call can come back with is said once, in the table at the end. */
const COMMON = new Set<string>([...COMMON_ERRORS, ...SIGNED_IN_ERRORS]);

function exampleOf({ name, examples }: Method): string[] {
  const [example] = examples;
  if (example === undefined) return [];
  const params = Object.fromEntries(example.params.map((param) => [param.name, param.value]));
  const result = JSON.stringify(example.result.value);
  const shown =
    result.length > 600 ? `see [examples/rpc/${name}.json](../examples/rpc/${name}.json)` : result;
  const lines = [`    -> ${JSON.stringify(params)}`];
  return result.length > 600 ? [...lines, "", `Answer: ${shown}.`, ""] : [...lines, `    <- ${shown}`, ""];
}

function defaultOf(schema: Schema): string {
  return schema.default === undefined ? "no" : `no, ${JSON.stringify(schema.default)}`;
}

function typeOf(schema: Schema): string {
  const limits: string[] = [];
  if (Array.isArray(schema.enum)) return schema.enum.map((value) => `\`${String(value)}\``).join(", ");
  if (typeof schema.maxLength === "number") limits.push(`at most ${schema.maxLength} characters`);
  if (
    typeof schema.minimum === "number" &&
    typeof schema.maximum === "number" &&
    schema.maximum < 2 ** 31 - 1
  ) {
    limits.push(`${schema.minimum} to ${schema.maximum}`);
  }
  if (typeof schema.maxItems === "number") limits.push(`at most ${schema.maxItems}`);
  const kind = typeof schema.type === "string" ? schema.type : "value";
  return limits.length === 0 ? kind : `${kind}, ${limits.join(", ")}`;
}

function errorTable(): string {
  const rows = Object.entries(ERRORS).map(([name, { rpc, http }]) => `| ${name} | ${rpc} | ${http} |`);
  return ["## Errors", "", "| name (`data.code`) | code | HTTP |", "|---|---|---|", ...rows, ""].join("\n");
}
