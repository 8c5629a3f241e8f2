import { downloadModel, parseModelUrl } from "#apps/llmserver/hub/index.ts";
import { readConfig } from "#platform/config/config.ts";
import { createLogger } from "#platform/log.ts";

/**
 * Run as a process of its own by tests that kill it: downloads `acme/tiny/<argv[3]>` from the hub at HF_ENDPOINT
 * into the directory argv[2], and prints one line of JSON when it is there.
 */
const [, , directory = "", file = ""] = process.argv;
const { hub } = readConfig();
const result = await downloadModel({
  source: parseModelUrl(`acme/tiny/${file}`),
  directory,
  hub,
  log: createLogger({ level: "silent", pretty: false }),
  signal: new AbortController().signal,
  onProgress: () => undefined,
});
process.stdout.write(`${JSON.stringify(result)}\n`);
