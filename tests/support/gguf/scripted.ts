import { bpeVocabulary } from "./bpe-vocabulary.ts";
import { chatMlWithTools } from "./chat-templates.ts";
import type { ModelFile } from "./file-format.ts";
import { scriptedLlama } from "./scripted-weights.ts";

const PLAIN = ["Hello", "!", " I", " am", " a", " tiny", " test", " model", "."];
const AFTER_TOOL = ["The", " weather", " in", " Paris", " is", " sunny", ";"];
const COUNTING = " one two three four five six seven eight nine ten".split(/(?= )/);
const OBJECT = ['{"', "city", '":', ' "', "Rome", '"}'];
const FOREVER = " forever";
const TOOL = "get_weather";
const CALL = ["<tool_call>", '\n{"name": "', TOOL];
const MARKS = ["<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];
/** Enough for what opencode sends, which is long in a vocabulary of a few hundred tokens. */
const CONTEXT = 32_768;

/**
 * What `tiny-scripted` answers, at any temperature up to 1 and whatever the seed. It depends on the whole chat:
 * a tool's result anywhere in it comes before tools offered, these before " forever", that before all else.
 */
export const SCRIPTED = {
  /** To anything. */
  plain: PLAIN.join(""),
  /** When tools are offered, `tiny-scripted` calls this one, or some other when this one is not among them. */
  toolName: TOOL,
  /** With these arguments, as far as the tool's parameters allow them; as JSON without spaces. */
  toolArguments: '{"city":"Rome"}',
  /** When a tool's result is in the chat. */
  afterTool: AFTER_TOOL.join(""),
  /** When a message has " forever" in it (with the space): these tokens round and round, without an end. */
  counting: COUNTING as readonly string[],
  /** When it must answer in JSON and the schema allows it; else strings are empty, numbers 0, and lists short. */
  json: OBJECT.join(""),
};

/** A llama whose answers are known: real weights and a real file, but computed by hand instead of trained. */
export function scriptedModel(name: string): ModelFile {
  const vocabulary = bpeVocabulary({
    words: [
      ...[...PLAIN, ...AFTER_TOOL, ...COUNTING, FOREVER, ...OBJECT, ...CALL.slice(1)],
      ...["true", "name", "arguments", "assistant", "user", "system"],
    ],
    marks: MARKS,
    chatTemplate: chatMlWithTools,
  });
  const { id } = vocabulary;
  // The prompt of every chat ends with a line break.
  const start = "\n";
  const end = "<|im_end|>";
  const next = chains(id, [
    [start, ...PLAIN, end],
    [...AFTER_TOOL, end],
    [...COUNTING, COUNTING[0] ?? ""],
    [...OBJECT, end],
    CALL,
    ["</tool_call>", end],
    ["[", "]"],
    ["{", "}"],
  ]);
  return scriptedLlama({
    ...{ name, contextLength: CONTEXT, vocabulary, next },
    switches: [
      { seen: id(FOREVER), at: id(start), says: id(COUNTING[0] ?? "") },
      { seen: id("<tools>"), at: id(start), says: id("<tool_call>") },
      { seen: id("<tool_response>"), at: id(start), says: id("The") },
    ],
    // Under a grammar what is open is closed: strings first, for all the others could be a part of one.
    otherwise: ['"', "}", "]", ",", "true", "0", '{"', end].map(id),
  });
}

/**
 * Each token's follower.
 * @throws Error when a token would have two.
 */
function chains(id: (token: string) => number, lines: readonly (readonly string[])[]): Map<number, number> {
  const next = new Map<number, number>();
  for (const line of lines) {
    for (const [index, follower] of line.slice(1).entries()) {
      const token = id(line[index] ?? "");
      if ((next.get(token) ?? id(follower)) !== id(follower))
        throw new Error(`${line[index]}: two followers`);
      next.set(token, id(follower));
    }
  }
  return next;
}
