import { z } from "zod";
import { invalid, parseAt, unsupported } from "./refuse.ts";

/** As for the messages of a chat. */
const MAX_ITEMS = 20_000;

export type Part =
  | { type: "text"; text: string }
  | { type: "image_url"; image_url: { url: string; detail?: string } };

/** What a request tells the model, in the words of a chat already. */
export type InputItem =
  | { type: "message"; role: "user" | "system" | "assistant"; content: string | Part[] }
  | { type: "function_call"; call_id: string; name: string; arguments: string }
  | { type: "function_call_output"; call_id: string; output: string };

const listSchema = z
  .array(z.looseObject({ type: z.string().nullish(), role: z.string().nullish() }))
  .min(1, "must hold at least one item")
  .max(MAX_ITEMS);

const messageSchema = z.looseObject({
  // What a developer says is what every model knows as the system's.
  role: z
    .enum(["user", "assistant", "system", "developer"])
    .transform((role) => (role === "developer" ? "system" : role)),
  content: z.unknown(),
});

const contentSchema = z.array(z.looseObject({ type: z.string() }));
const textSchema = z.looseObject({ text: z.string() });
const refusalSchema = z.looseObject({ refusal: z.string() });
const imageSchema = z.looseObject({
  image_url: z.string().min(1).nullish(),
  detail: z.enum(["auto", "low", "high", "original"]).nullish(),
});

const callSchema = z.looseObject({
  call_id: z.string().min(1),
  name: z.string().min(1),
  arguments: z.string(),
});

const outputSchema = z.looseObject({ call_id: z.string().min(1), output: z.unknown() });

/** An item and where it stood. */
interface Placed {
  item: InputItem;
  at: string;
}

/**
 * The `input` of a request, item by item. Reasoning items are left out: a chat has no place for them.
 * @throws AppError InvalidParams or ApiError 400, naming the place as in `input[2].content[0].type`.
 */
export function parseInputItems(input: unknown): InputItem[] {
  if (typeof input === "string") return [{ type: "message", role: "user", content: input }];
  if (!Array.isArray(input)) throw invalid("input", "must be a text or a list of items");
  const placed = parseAt(listSchema, input, "input").flatMap((item, index): Placed[] => {
    const at = `input[${index}]`;
    const parsed = parseItem(item, at);
    return parsed === undefined ? [] : [{ item: parsed, at }];
  });
  if (placed.length === 0) throw invalid("input", "must hold at least one item that is no reasoning");
  checkCalls(placed);
  return placed.map(({ item }) => item);
}

/** Every call has its output after it and every output its call: chats with loose ends are refused everywhere. */
function checkCalls(placed: readonly Placed[]): void {
  /** Where the calls stand that wait for their output, by their id: some providers use one again. */
  const waiting = new Map<string, string[]>();
  for (const { item, at } of placed) {
    if (item.type === "message") continue;
    const calls = waiting.get(item.call_id) ?? [];
    waiting.set(item.call_id, calls);
    if (item.type === "function_call") calls.push(at);
    else if (calls.shift() === undefined) {
      throw invalid(`${at}.call_id`, "no function call before it has this id");
    }
  }
  for (const [at] of waiting.values()) {
    if (at !== undefined) throw invalid(`${at}.call_id`, "the function call has no function_call_output");
  }
}

function parseItem(item: z.output<typeof listSchema>[number], at: string): InputItem | undefined {
  const type = item.type ?? (typeof item.role === "string" ? "message" : "item_reference");
  switch (type) {
    case "message":
      return parseMessage(item, at);
    case "function_call": {
      const { call_id, name, arguments: args } = parseAt(callSchema, item, at);
      return { type, call_id, name, arguments: args };
    }
    case "function_call_output": {
      const { call_id, output } = parseAt(outputSchema, item, at);
      return { type, call_id, output: parseOutput(output, `${at}.output`) };
    }
    case "reasoning":
      return undefined;
    case "item_reference":
      throw unsupported(
        at,
        "Nothing is stored here: send the item itself, as clients do with `store: false`.",
      );
    default:
      throw unsupported(
        `${at}.type`,
        "Send items of type message, function_call, function_call_output or reasoning.",
      );
  }
}

function parseMessage(item: unknown, at: string): InputItem {
  const { role, content } = parseAt(messageSchema, item, at);
  const path = `${at}.content`;
  if (typeof content === "string") return { type: "message", role, content };
  const parts = parseAt(contentSchema, content, path).map((part, index) =>
    parsePart(part, role, `${path}[${index}]`),
  );
  // An answer is one text for a chat, and many providers know the parts of a user's message only.
  const texts = parts.flatMap((part) => (part.type === "text" ? [part.text] : []));
  const whole = role === "assistant" || parts.length < 2;
  return { type: "message", role, content: whole && texts.length === parts.length ? texts.join("") : parts };
}

function parsePart(part: { type: string }, role: string, at: string): Part {
  switch (part.type) {
    case "input_text":
    case "output_text":
      return { type: "text", text: parseAt(textSchema, part, at).text };
    case "refusal":
      return { type: "text", text: parseAt(refusalSchema, part, at).refusal };
    case "input_image":
      if (role !== "user") throw unsupported(`${at}.type`, "Images belong into messages of the user.");
      return parseImage(part, at);
    default:
      throw unsupported(`${at}.type`, "Send parts of type input_text, input_image or output_text.");
  }
}

function parseImage(part: unknown, at: string): Part {
  const { image_url: url, detail } = parseAt(imageSchema, part, at);
  if (url == null) throw unsupported(`${at}.file_id`, "No files are kept here: send `image_url`.");
  // A chat knows no finer detail than "high".
  const finest = detail === "original" ? "high" : detail;
  return { type: "image_url", image_url: { url, ...(finest == null ? {} : { detail: finest }) } };
}

/** What a function gave back is one text for a chat. */
function parseOutput(output: unknown, at: string): string {
  if (typeof output === "string") return output;
  const parts = parseAt(contentSchema, output, at);
  return parts
    .map((part, index) => {
      if (part.type === "input_text") return parseAt(textSchema, part, `${at}[${index}]`).text;
      throw unsupported(
        `${at}[${index}].type`,
        "A function's output is text; send images in a message of the user after it.",
      );
    })
    .join("");
}
