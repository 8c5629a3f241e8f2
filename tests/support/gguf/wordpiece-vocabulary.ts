import { u32 } from "./file-format.ts";
import { TOKEN_TYPE, TokenList, type Vocabulary } from "./vocabulary.ts";

const WORD_START = "▁";
const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789";
const PAD = "[PAD]";
const UNKNOWN = "[UNK]";
const CLASS = "[CLS]";
const SEPARATOR = "[SEP]";
const MASK = "[MASK]";

/** BERT's WordPiece, lower case: whole words, letters at the beginning of a word and within one. */
export function wordPieceVocabulary(words: readonly string[]): Vocabulary {
  const tokens = new TokenList();
  for (const token of [PAD, UNKNOWN, CLASS, SEPARATOR, MASK]) {
    tokens.add(token, token === UNKNOWN ? TOKEN_TYPE.unknown : TOKEN_TYPE.control);
  }
  for (const letter of LETTERS) {
    tokens.add(WORD_START + letter);
    tokens.add(letter);
  }
  for (let code = 0x21; code <= 0x7e; code++) {
    tokens.add(WORD_START + String.fromCharCode(code).toLowerCase());
  }
  for (const word of words) tokens.add(WORD_START + word.toLowerCase());
  return {
    size: tokens.size,
    id: (token) => tokens.id(token),
    metadata: [
      ...tokens.metadata("bert", "default"),
      ["tokenizer.ggml.token_type_count", u32(2)],
      ["tokenizer.ggml.unknown_token_id", u32(tokens.id(UNKNOWN))],
      // The format's own spelling.
      ["tokenizer.ggml.seperator_token_id", u32(tokens.id(SEPARATOR))],
      ["tokenizer.ggml.padding_token_id", u32(tokens.id(PAD))],
      ["tokenizer.ggml.cls_token_id", u32(tokens.id(CLASS))],
      ["tokenizer.ggml.mask_token_id", u32(tokens.id(MASK))],
      ["tokenizer.ggml.bos_token_id", u32(tokens.id(CLASS))],
      ["tokenizer.ggml.eos_token_id", u32(tokens.id(SEPARATOR))],
    ],
  };
}
