import { type LlamaModel, LlamaVocabularyType, type Token } from "node-llama-cpp";

/** The printable character that byte-level BPE vocabularies (GPT-2's and all after it) write for each byte. */
const BYTE_OF_CHARACTER = new Map<string, number>();
{
  let unprintable = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    BYTE_OF_CHARACTER.set(String.fromCodePoint(printable ? byte : 256 + unprintable++), byte);
  }
}

interface Vocabulary {
  _model?: { getTokenString?: (token: number) => string | undefined };
}

/**
 * The bytes a token stands for; part of a character as well, which a text could not hold.
 * The vocabulary's own spelling is private in node-llama-cpp 3.22.1; without it the token's text is taken.
 */
export function tokenBytes(model: LlamaModel, token: number): number[] {
  const { _model } = model as unknown as Vocabulary;
  const piece = typeof _model?.getTokenString === "function" ? _model.getTokenString(token) : undefined;
  if (piece === undefined) return [...Buffer.from(model.detokenize([token as Token], true), "utf8")];
  if (model.vocabularyType === LlamaVocabularyType.spm) return bytesOfSentencePiece(piece);
  const bytes = [...piece].map((character) => BYTE_OF_CHARACTER.get(character));
  // A special token is spelt as it is, and may hold what no byte-level word does.
  return bytes.every((byte) => byte !== undefined) ? bytes : [...Buffer.from(piece, "utf8")];
}

function bytesOfSentencePiece(piece: string): number[] {
  const single = /^<0x([0-9A-F]{2})>$/.exec(piece)?.[1];
  if (single !== undefined) return [Number.parseInt(single, 16)];
  return [...Buffer.from(piece.replaceAll("▁", " "), "utf8")];
}
