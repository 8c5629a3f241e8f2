import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { exampleFiles, toJson } from "../schemas/rpc/example-files.ts";
import { buildHandbook } from "../schemas/rpc/handbook.ts";
import { buildOpenRpc } from "../schemas/rpc/openrpc.ts";

/** Write what is generated from the method specs: the OpenRPC document, the handbook and one example per method. */
const root = fileURLToPath(new URL("..", import.meta.url));
const examples = join(root, "examples/rpc");

writeFileSync(join(root, "schemas/rpc/openrpc.json"), toJson(buildOpenRpc()));
writeFileSync(join(root, "docs/rpc-api.md"), buildHandbook());
mkdirSync(examples, { recursive: true });
const files = exampleFiles();
for (const [name, content] of Object.entries(files)) writeFileSync(join(examples, name), content);
for (const name of readdirSync(examples)) {
  if (name.endsWith(".json") && !(name in files)) rmSync(join(examples, name));
}
console.log(
  `schemas/rpc/openrpc.json, docs/rpc-api.md and ${Object.keys(files).length} files in examples/rpc are written.`,
);
