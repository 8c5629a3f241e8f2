import { chatMl } from "./chat-templates.ts";
import { boolean, f32s, text, u32 } from "./file-format.ts";
import { TOKEN_TYPE, TokenList, type Vocabulary } from "./vocabulary.ts";

const SPACE = "▁";
const UNKNOWN = "<unk>";
const BEGIN = "<s>";
const END_OF_TURN = "<|im_end|>";

/** SentencePiece: pieces are joined as long as a better scored one comes of it, and bytes stand for all other text. */
export function spmVocabulary(words: readonly string[]): Vocabulary {
  const tokens = new TokenList();
  const scores: number[] = [];
  const addPlain = (token: string, type: number) => {
    tokens.add(token, type);
    scores.push(0);
  };
  /** What was added earlier is better scored: a word's beginnings come before the word. */
  const addPiece = (token: string) => {
    if (tokens.add(token)) scores.push(-tokens.size);
  };
  addPlain(UNKNOWN, TOKEN_TYPE.unknown);
  for (const token of [BEGIN, "</s>"]) addPlain(token, TOKEN_TYPE.control);
  for (let byte = 0; byte < 256; byte++) {
    addPlain(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, TOKEN_TYPE.byte);
  }
  for (const word of words) {
    for (let length = 1; length <= word.length; length++) addPiece(SPACE + word.slice(0, length));
  }
  addPiece(SPACE);
  for (let code = 0x21; code <= 0x7e; code++) addPiece(String.fromCharCode(code));
  addPiece("\n");
  for (const token of ["<|im_start|>", END_OF_TURN]) addPlain(token, TOKEN_TYPE.control);
  return {
    size: tokens.size,
    id: (token) => tokens.id(token),
    metadata: [
      ...tokens.metadata("llama", "default"),
      ["tokenizer.ggml.scores", f32s(scores)],
      ["tokenizer.ggml.bos_token_id", u32(tokens.id(BEGIN))],
      ["tokenizer.ggml.eos_token_id", u32(tokens.id(END_OF_TURN))],
      ["tokenizer.ggml.unknown_token_id", u32(tokens.id(UNKNOWN))],
      ["tokenizer.ggml.add_bos_token", boolean(true)],
      ["tokenizer.ggml.add_eos_token", boolean(false)],
      ["tokenizer.chat_template", text(chatMl)],
    ],
  };
}
