import { chatMl } from "./chat-templates.ts";
import { boolean, text, texts, u32 } from "./file-format.ts";
import { RandomBytes } from "./random-bytes.ts";
import { TOKEN_TYPE, TokenList, type Vocabulary } from "./vocabulary.ts";

/** GPT-2's byte pair encoding: every byte is a token, and pairs of tokens merge in the order of a list. */

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
  /** Each becomes a token, if the pre-tokenizer leaves it in one piece. */
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
  const merges = new Merges();
  for (const letter of letters) tokens.add(letter);
  for (const word of words) {
    for (const token of merges.join(spell(word))) tokens.add(token);
  }
  if (fill !== undefined) addInvented(tokens, fill.size - CONTROL.length - marks.length, fill.seed);
  for (const token of CONTROL) tokens.add(token, TOKEN_TYPE.control);
  for (const token of marks) tokens.add(token, TOKEN_TYPE.userDefined);
  return {
    size: tokens.size,
    id: (token) => tokens.id(tokens.has(token) ? token : spell(token).join("")),
    metadata: [
      ...tokens.metadata("gpt2", "qwen2"),
      ["tokenizer.ggml.merges", texts(merges.list)],
      ["tokenizer.ggml.bos_token_id", u32(tokens.id(END_OF_TEXT))],
      ["tokenizer.ggml.eos_token_id", u32(tokens.id(END_OF_TURN))],
      ["tokenizer.ggml.padding_token_id", u32(tokens.id(END_OF_TEXT))],
      ["tokenizer.ggml.add_bos_token", boolean(false)],
      ["tokenizer.chat_template", text(chatTemplate)],
    ],
  };
}

/** Pairs of tokens that become one, the first in the list first. */
class Merges {
  readonly #ranks = new Map<string, number>();

  get list(): string[] {
    return [...this.#ranks.keys()];
  }

  /**
   * Add what is needed for these letters to become one token. Words that already do still do so afterwards: what is
   * added comes last.
   * @returns the new tokens.
   */
  join(letters: readonly string[]): string[] {
    const made: string[] = [];
    for (;;) {
      const [first, second] = this.#merge(letters);
      if (first === undefined || second === undefined) return made;
      this.#ranks.set(`${first} ${second}`, this.#ranks.size);
      made.push(first + second);
    }
  }

  /** What becomes of letters as it is. */
  #merge(letters: readonly string[]): string[] {
    const pieces = [...letters];
    for (;;) {
      const ranks = pieces.slice(1).map((next, index) => this.#ranks.get(`${pieces[index]} ${next}`));
      const lowest = Math.min(...ranks.map((rank) => rank ?? Number.POSITIVE_INFINITY));
      const at = ranks.indexOf(lowest);
      if (at === -1) return pieces;
      pieces.splice(at, 2, pieces.slice(at, at + 2).join(""));
    }
  }
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
