import { chatMl } from "./chat-templates.ts";
import { boolean, text, texts, u32 } from "./file-format.ts";
import { RandomBytes } from "./random-bytes.ts";
import { TOKEN_TYPE, TokenList, type Vocabulary } from "./vocabulary.ts";

/** GPT-2's byte pair encoding: every byte is a token, and words grow from their first byte on, merge by merge. */

const END_OF_TEXT = "<|endoftext|>";
const END_OF_TURN = "<|im_end|>";
/** Marks the library knows by their names: turns of a chat, and a gap to be filled in. */
const CONTROL = [
  END_OF_TEXT,
  "<|im_start|>",
  END_OF_TURN,
  "<|fim_prefix|>",
  "<|fim_middle|>",
  "<|fim_suffix|>",
  "<|fim_pad|>",
];
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const SPACE = "Ġ";
/** Length of the invented words that fill a vocabulary up: from 3 on, so many lengths. */
const SHORTEST = 3;
const LENGTHS = 6;

interface BpeOptions {
  /** Each becomes a token, and each of its beginnings. */
  words: readonly string[];
  /** Tokens of the text that are never split, and are shown. */
  marks?: readonly string[];
  /** Invented words are added until there are so many tokens. */
  fill?: { size: number; seed: string };
  chatTemplate?: string;
}

/** `id` takes tokens as they are shown: " one", not "Ġone". */
export function bpeVocabulary({ words, marks = [], fill, chatTemplate = chatMl }: BpeOptions): Vocabulary {
  const letters = byteLetters();
  const spell = (word: string) => [...Buffer.from(word)].map((byte) => letters[byte] ?? "");
  const tokens = new TokenList();
  const merges: string[] = [];
  for (const letter of letters) tokens.add(letter);
  for (const word of words) {
    const [first = "", ...rest] = spell(word);
    let beginning = first;
    for (const letter of rest) {
      if (tokens.add(beginning + letter)) merges.push(`${beginning} ${letter}`);
      beginning += letter;
    }
  }
  if (fill !== undefined) addInvented(tokens, fill.size - CONTROL.length - marks.length, fill.seed);
  for (const token of CONTROL) tokens.add(token, TOKEN_TYPE.control);
  for (const token of marks) tokens.add(token, TOKEN_TYPE.userDefined);
  return {
    size: tokens.size,
    id: (token) => tokens.id(tokens.has(token) ? token : spell(token).join("")),
    metadata: [
      ...tokens.metadata("gpt2", "qwen2"),
      ["tokenizer.ggml.merges", texts(merges)],
      ["tokenizer.ggml.bos_token_id", u32(tokens.id(END_OF_TEXT))],
      ["tokenizer.ggml.eos_token_id", u32(tokens.id(END_OF_TURN))],
      ["tokenizer.ggml.padding_token_id", u32(tokens.id(END_OF_TEXT))],
      ["tokenizer.ggml.add_bos_token", boolean(false)],
      ["tokenizer.chat_template", text(chatTemplate)],
    ],
  };
}

/** Words that text is never split into, for nothing merges into them: they only take the room a real vocabulary takes. */
function addInvented(tokens: TokenList, size: number, seed: string): void {
  const source = new RandomBytes(`${seed}:vocabulary`);
  while (tokens.size < size) {
    const length = SHORTEST + source.below(LENGTHS);
    tokens.add(SPACE + Array.from({ length }, () => LETTERS[source.below(LETTERS.length)]).join(""));
  }
}

/** The printable letter that stands for each byte: itself where it is one, else the next one from U+0100 on. */
function byteLetters(): string[] {
  let invisible = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : 0x100 + invisible++);
  });
}
