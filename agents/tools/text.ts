import { ToolFailure } from "./tool.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** A file's text. @throws ToolFailure when it is none. */
export function textOf(content: Uint8Array, path: string): string {
  try {
    const text = decoder.decode(content);
    if (!text.includes("\0")) return text;
  } catch {
    // Not UTF-8: told below.
  }
  throw new ToolFailure(
    `${path} is no text (${content.byteLength} bytes). It cannot be shown or edited here.`,
  );
}

export function bytesOf(text: string): Uint8Array {
  return encoder.encode(text);
}

/** A text of `max` characters at most: its beginning and its end, with a word between on what is missing. */
export function shorten(text: string, max: number): string {
  if (text.length <= max) return text;
  const marker = `\n… ${text.length - max} characters and more left out …\n`;
  const room = Math.max(0, max - marker.length);
  const head = Math.ceil(room / 2);
  const short = `${text.slice(0, head)}${marker}${room - head === 0 ? "" : text.slice(-(room - head))}`;
  return short.slice(0, max).toWellFormed();
}

export const count = (number: number, what: string) => `${number} ${what}${number === 1 ? "" : "s"}`;

/** As many whole lines as fit into `chars`, and a word on how many are missing and how to see them. */
export function fitting(
  lines: readonly string[],
  { total, chars, hint }: { readonly total: number; readonly chars: number; readonly hint: string },
): string {
  const shown: string[] = [];
  let room = chars - hint.length - 60;
  for (const line of lines) {
    room -= line.length + 1;
    if (room < 0 && shown.length > 0) break;
    shown.push(line);
  }
  if (shown.length < total) shown.push(`(${shown.length} of ${total} are shown. ${hint})`);
  return shown.join("\n");
}
