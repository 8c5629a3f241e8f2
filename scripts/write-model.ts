import { parseArgs } from "node:util";
import { MODEL_NAMES, MODEL_TYPES, type ModelOptions, writeModel } from "../tests/support/gguf/index.ts";

/** Write a test model's file: `npm run model -- NAME FILE`. */

const USAGE = `npm run model -- NAME FILE [--seed TEXT] [--type TYPE]

Writes a test model (GGUF): the same bytes for the same name, seed and type.

names:  ${MODEL_NAMES.join(", ")}
        tiny-scripted gives known answers; the others have random weights and say nothing of sense.
--seed  of the random weights; "1" unless told
--type  ${MODEL_TYPES.join(", ")}; unless told f16 for tiny ones, q4_0 for large ones`;
const WRONG_USAGE = 2;

class UsageError extends Error {}

function oneOf<T extends string>(what: string, choices: readonly T[], given: string): T {
  const found = choices.find((choice) => choice === given);
  if (found === undefined) {
    throw new UsageError(`There is no ${what} "${given}"; there are ${choices.join(", ")}.`);
  }
  return found;
}

function read(args: string[]) {
  try {
    const options = {
      seed: { type: "string" },
      type: { type: "string" },
      help: { type: "boolean" },
    } as const;
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    // Its messages are for people: which option is unknown, or wants a value.
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** What it did, or how it is used. */
function run(args: string[]): string {
  const { values, positionals } = read(args);
  if (values.help) return USAGE;
  const [name, path, ...surplus] = positionals;
  if (name === undefined) throw new UsageError(`Name a model and a file.\n\n${USAGE}`);
  const model = oneOf("model", MODEL_NAMES, name);
  if (path === undefined) throw new UsageError("Name the file to write.");
  if (surplus.length > 0) throw new UsageError(`Not understood: ${surplus.join(" ")}`);
  const options: ModelOptions = {
    ...(values.seed === undefined ? {} : { seed: values.seed }),
    ...(values.type === undefined ? {} : { type: oneOf("type", MODEL_TYPES, values.type) }),
  };
  const { bytes, sha256, parameters } = writeModel(model, path, options);
  return `${path}: ${bytes} bytes, ${parameters} parameters, sha256 ${sha256}`;
}

try {
  console.log(run(process.argv.slice(2)));
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  // A range error: the model is not to be had in this type.
  process.exitCode = error instanceof UsageError || error instanceof RangeError ? WRONG_USAGE : 1;
}
