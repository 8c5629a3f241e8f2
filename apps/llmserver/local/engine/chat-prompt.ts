import {
  type ChatHistoryItem,
  type ChatModelFunctions,
  ChatWrapper,
  type ChatWrapperGenerateContextStateOptions,
  type ChatWrapperGeneratedContextState,
  type ChatWrapperSettings,
  type GbnfJsonBasicSchema,
  type GbnfJsonSchema,
  type LlamaGrammar,
  type Token,
} from "node-llama-cpp";
import type { ChatGenerate } from "../types.ts";
import { toHistory } from "./history.ts";
import { SchemaProblem, toGrammarSchema } from "./json-schema.ts";
import { type Generation, type Loaded, refuseHopeless, refuseTooLong } from "./loaded.ts";
import { invalid, Refusal } from "./refusal.ts";

/** Calls one answer may make; a small model that has begun to call may not find an end. */
const MAX_CALLS = 16;
/** Grammars are built from schemas in some ms, and the same one is asked for again and again. */
const GRAMMAR_CACHE = 32;

/** A chat as the library takes it. */
export interface ChatPrompt {
  history: ChatHistoryItem[];
  wrapper: ChatWrapper;
  functions: ChatModelFunctions | undefined;
  maxCalls: number;
  grammar: LlamaGrammar | undefined;
  prompt: Token[];
}

/** @throws Refusal 400 naming what this model cannot do. */
export async function chatPrompt(
  loaded: Loaded,
  generation: Generation,
  request: ChatGenerate,
): Promise<ChatPrompt> {
  const history = toHistory(request.messages);
  const functions = functionsOf(request);
  if (functions !== undefined && request.response_format.type !== "text") {
    throw invalid(
      "response_format",
      "With local models it does not go together with tools: leave tools out, or set tool_choice to none.",
    );
  }
  const grammar = await grammarOf(loaded, request);
  await refuseHopeless(loaded, history.map(textOfItem), "messages");
  const wrapper = wrapperFor(generation, functions !== undefined && request.tool_choice !== "auto", grammar);
  const prompt = render(loaded, wrapper, history, functions);
  refuseTooLong(loaded, prompt, "messages");
  const parallel = request.parallel_tool_calls && wrapper.settings.functions.parallelism !== undefined;
  return { history, wrapper, functions, grammar, prompt, maxCalls: parallel ? MAX_CALLS : 1 };
}

function wrapperFor(
  { wrapper }: Generation,
  forced: boolean,
  grammar: LlamaGrammar | undefined,
): ChatWrapper {
  if (forced) return new ForcedCalls(wrapper);
  return grammar === undefined ? wrapper : new WithoutThoughts(wrapper);
}

function render(
  { model }: Loaded,
  wrapper: ChatWrapper,
  history: readonly ChatHistoryItem[],
  functions: ChatModelFunctions | undefined,
): Token[] {
  try {
    const { contextText } = wrapper.generateContextState({
      chatHistory: history,
      ...(functions === undefined ? {} : { availableFunctions: functions }),
      documentFunctionParams: true,
    });
    return contextText.tokenize(model.tokenizer);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw invalid("messages", `The chat template of this model does not take them: ${reason.slice(0, 300)}`);
  }
}

function textOfItem(item: ChatHistoryItem): string {
  if (item.type !== "model") return typeof item.text === "string" ? item.text : JSON.stringify(item.text);
  return item.response.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join("");
}

/** Those the model may call, by name; undefined when it may call none. */
function functionsOf({ tools, tool_choice }: ChatGenerate): ChatModelFunctions | undefined {
  if (tool_choice === "none") return undefined;
  const named = typeof tool_choice === "object" ? tool_choice.name : undefined;
  const offered = tools.filter(({ name }) => named === undefined || name === named);
  if (offered.length === 0) {
    if (tool_choice === "auto") return undefined;
    throw invalid(
      "tool_choice",
      named === undefined ? "There are no tools." : `There is no tool "${named}".`,
    );
  }
  return Object.fromEntries(
    offered.map(({ name, description, parameters }) => [
      name,
      {
        ...(description === undefined ? {} : { description }),
        ...(parameters === undefined ? {} : { params: parametersOf(name, parameters) }),
      },
    ]),
  );
}

function parametersOf(tool: string, parameters: Record<string, unknown>): GbnfJsonSchema {
  const schema = parameters.type === undefined ? { type: "object", ...parameters } : parameters;
  try {
    return toGrammarSchema(schema, { strict: false });
  } catch (error) {
    if (!(error instanceof SchemaProblem)) throw error;
    throw invalid("tools", `The parameters of "${tool}": ${error.message}.`);
  }
}

const grammars = new Map<string, LlamaGrammar>();

async function grammarOf({ llama }: Loaded, request: ChatGenerate): Promise<LlamaGrammar | undefined> {
  const format = request.response_format;
  if (format.type === "text") return undefined;
  const given = format.type === "json_object" ? { type: "object" } : format.schema;
  const key = JSON.stringify(given);
  const known = grammars.get(key);
  if (known !== undefined) return known;
  try {
    const schema = toGrammarSchema(given, { strict: true });
    // Its parameter is typed for schemas that are written down in the program.
    const made = await llama.createGrammarForJsonSchema(schema as GbnfJsonBasicSchema);
    const [oldest] = grammars.keys();
    if (grammars.size >= GRAMMAR_CACHE && oldest !== undefined) grammars.delete(oldest);
    grammars.set(key, made);
    return made;
  } catch (error) {
    if (error instanceof SchemaProblem) throw invalid("response_format", `The schema: ${error.message}.`);
    throw new Refusal({
      status: 400,
      message: "response_format: No grammar can be made of this schema; it may be too large.",
      code: "unsupported_value",
      param: "response_format",
    });
  }
}

/** A model's own chat format without room for thoughts: a grammar leaves none, and would take its JSON for one. */
class WithoutThoughts extends ChatWrapper {
  readonly wrapperName: string = "without thoughts";
  override readonly settings: ChatWrapperSettings;
  protected readonly inner: ChatWrapper;

  constructor(inner: ChatWrapper) {
    super();
    this.inner = inner;
    this.settings = { ...inner.settings, segments: {} };
  }

  override generateContextState(
    options: ChatWrapperGenerateContextStateOptions,
  ): ChatWrapperGeneratedContextState {
    return this.inner.generateContextState(options);
  }
}

/** The answer begins with a call already begun: only the function is left to choose. */
class ForcedCalls extends WithoutThoughts {
  override readonly wrapperName = "forced calls";

  override generateContextState(
    options: ChatWrapperGenerateContextStateOptions,
  ): ChatWrapperGeneratedContextState {
    const { contextText, stopGenerationTriggers } = this.inner.generateContextState(options);
    return {
      contextText,
      stopGenerationTriggers,
      functionCall: { initiallyEngaged: true, disengageInitiallyEngaged: [] },
    };
  }
}
