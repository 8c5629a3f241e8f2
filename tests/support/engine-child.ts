import { createLogger } from "#platform/log.ts";
import { startEngine } from "../../apps/llmserver/local/start-engine.ts";
import { chat } from "./engines.ts";

/**
 * Run as a process of its own by a test that kills it: loads the model of argv[2], prints its process's id once it
 * generates, and goes on.
 */
const model = await startEngine({
  model_id: "child",
  path: process.argv[2] ?? "",
  load: { context_size: 2048, sequences: 1 },
  log: createLogger({ level: "silent", pretty: false }),
  admit: () => {},
  signal: new AbortController().signal,
});
let told = false;
while (true) {
  for await (const _ of model.generate(
    chat("count forever", { max_tokens: 2000 }),
    new AbortController().signal,
  )) {
    if (!told) process.stdout.write(`${model.pid}\n`);
    told = true;
  }
}
